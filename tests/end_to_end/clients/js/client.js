// MQTT.js against Avow: one device publishes, one dashboard subscribes, at every QoS.
//
// Usage: node client.js VERSION HOST PORT DEVICE_DIR DASHBOARD_DIR TOPIC COUNT [ORIGIN]
//
// VERSION is 4 (3.1.1) or 5. With an ORIGIN both go over WebSocket, as a page of that Origin would.
// Prints one JSON object: how many messages arrived at each QoS, in
// order and unchanged. Ends with an error on whatever else happens.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const mqtt = require("mqtt");

const WITHIN_MILLIS = 20_000;

function connect(version, host, port, directory, origin) {
  const read = (name) => fs.readFileSync(path.join(directory, name));
  const { client_id: clientId } = JSON.parse(read("connect.json"));
  return mqtt.connectAsync({
    ...(origin
      ? { protocol: "wss", path: "/mqtt", wsOptions: { origin } }
      : { protocol: "mqtts" }),
    protocolVersion: version,
    host,
    port,
    clientId,
    ca: read("ca.pem"),
    cert: read("cert.pem"),
    key: read("key.pem"),
    reconnectPeriod: 0,
    connectTimeout: WITHIN_MILLIS,
  }, false);
}

async function main() {
  const [version, host, port, deviceDir, dashboardDir, topic, count, origin] =
    process.argv.slice(2);
  const to = (directory) => connect(Number(version), host, Number(port), directory, origin);
  const dashboard = await to(dashboardDir);
  const received = [];
  let arrived = () => {};
  dashboard.on("message", (name, payload, packet) => {
    received.push([name, payload.toString(), packet.qos]);
    arrived();
  });
  const granted = await dashboard.subscribeAsync(topic, { qos: 2 });
  assert.deepStrictEqual(granted.map((grant) => grant.qos), [2]);
  const device = await to(deviceDir);
  const counts = [];
  for (const qos of [0, 1, 2]) {
    const sent = Array.from({ length: Number(count) }, (_, n) => [topic, `${qos}-${n}`, qos]);
    await Promise.all(sent.map(([name, payload]) => device.publishAsync(name, payload, { qos })));
    while (received.length < sent.length) {
      await new Promise((resolve) => { arrived = resolve; });
    }
    assert.deepStrictEqual(received.splice(0), sent);
    counts.push(sent.length);
  }
  await device.endAsync();
  await dashboard.endAsync();
  console.log(JSON.stringify({ arrived: counts }));
}

const late = setTimeout(() => {
  console.error("not done in time");
  process.exit(1);
}, WITHIN_MILLIS);

main().then(
  () => clearTimeout(late),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
