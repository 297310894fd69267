// A dashboard in headless Chromium, with MQTT.js as its page loads it, against Avow's WebSockets.
//
// Usage: node browser.js CHROMIUM PAGE_PORT WSS_PORT CREDENTIAL_DIR SERVER_CERT SERVER_KEY MODE …
//
// A static page is served from https://localhost:PAGE_PORT, which is its Origin. MODE is
//   dashboard VERSION HOST PORT DEVICE_DIR TOPIC COUNT
//             the browser shows the certificate of CREDENTIAL_DIR and subscribes; a device outside
//             the browser publishes over MQTT at every QoS. Prints how many arrived at each, in
//             order and unchanged.
//   token     as dashboard, and one argument more: the browser shows no certificate but this token,
//             in the password field.
//   refused   the browser shows no certificate, and must not get a WebSocket. Prints what the page
//             was told.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const { chromium } = require("playwright-core");
const { connect, publish, run } = require("./common");

const WITHIN_MILLIS = 60_000;

const BUNDLE = fs.readFileSync(path.join(__dirname, "node_modules/mqtt/dist/mqtt.min.js"));
const PAGE = '<!doctype html><title>wall</title><script src="/mqtt.min.js"></script>';

/** Serves the page until closed. */
function serve(port, certificate, key) {
  const options = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) };
  const server = https.createServer(options, (request, response) => {
    const isBundle = request.url === "/mqtt.min.js";
    response.setHeader("Content-Type", isBundle ? "text/javascript" : "text/html");
    response.end(isBundle ? BUNDLE : PAGE);
  });
  return new Promise((resolve) => { server.listen(port, "127.0.0.1", () => resolve(server)); });
}

/** In the page: connects, subscribes, keeps what arrives in `window.arrived`. */
async function watch({ url, version, clientId, topic, token }) {
  const { mqtt } = window;
  window.arrived = [];
  const client = await mqtt.connectAsync(url, {
    protocolVersion: version,
    clientId,
    ...(token ? { username: "dashboard", password: token } : {}),
    reconnectPeriod: 0,
    connectTimeout: 20_000,
  }, false);
  client.on("message", (name, payload, packet) => {
    window.arrived.push([name, new TextDecoder().decode(payload), packet.qos]);
  });
  window.client = client;
  const granted = await client.subscribeAsync(topic, { qos: 2 });
  return granted.map((grant) => grant.qos);
}

/** In the page: what becomes of a WebSocket. */
function open({ url }) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, ["mqtt"]);
    socket.onopen = () => resolve({ opened: true, protocol: socket.protocol });
    socket.onclose = (event) => resolve({ opened: false, code: event.code });
  });
}

async function dashboard(page, url, clientId, rest) {
  const [version, host, port, deviceDir, topic, count, token] = rest;
  const watching = { url, version: Number(version), clientId, topic, token };
  assert.deepStrictEqual(await page.evaluate(watch, watching), [2]);
  const device = await connect(Number(version), host, Number(port), deviceDir);
  const arrived = await publish(device, topic, Number(count), async (length) => {
    await page.waitForFunction((wanted) => window.arrived.length >= wanted, length);
    return page.evaluate(() => window.arrived.splice(0));
  });
  await device.endAsync();
  await page.evaluate(() => window.client.endAsync());
  return { arrived };
}

run(async () => {
  const [executable, pagePort, wssPort, credentialDir, certificate, key, mode, ...rest] =
    process.argv.slice(2);
  const server = await serve(Number(pagePort), certificate, key);
  const url = `wss://localhost:${wssPort}/mqtt`;
  const browser = await chromium.launch({
    executablePath: executable,
    // A container has neither the name spaces for the sandbox nor a /dev/shm of its size.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });
  try {
    const shown = {
      origin: `https://localhost:${wssPort}`,
      certPath: path.join(credentialDir, "cert.pem"),
      keyPath: path.join(credentialDir, "key.pem"),
    };
    const context = await browser.newContext({
      // The browser knows nothing of the plant's CA; who the broker is, other clients check.
      ignoreHTTPSErrors: true,
      ...(mode === "dashboard" ? { clientCertificates: [shown] } : {}),
    });
    const page = await context.newPage();
    await page.goto(`https://localhost:${pagePort}/`);
    const { client_id: clientId } =
      JSON.parse(fs.readFileSync(path.join(credentialDir, "connect.json")));
    const said = mode === "dashboard" || mode === "token"
      ? await dashboard(page, url, clientId, rest)
      : await page.evaluate(open, { url });
    console.log(JSON.stringify(said));
  } finally {
    await browser.close();
    server.close();
    server.closeAllConnections();
  }
}, WITHIN_MILLIS);
