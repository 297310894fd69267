// MQTT.js with a token against Avow's WebSockets: a dashboard without a certificate subscribes, a
// device with one publishes over MQTT at every QoS.
//
// Usage: node token.js HOW VERSION HOST WSS_PORT ORIGIN MQTT_PORT DEVICE_DIR TOPIC COUNT TOKEN NEXT
//
// HOW is password (TOKEN in the password field) or method (MQTT 5 enhanced authentication; NEXT
// renews it between QoS 0 and 1). Prints one JSON object: how many messages arrived at each QoS, in
// order and unchanged. Ends with an error on whatever else happens.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const mqtt = require("mqtt");

const WITHIN_MILLIS = 20_000;

/** What names the dashboard. */
function credential(how, token) {
  return how === "method"
    ? {
      properties: {
        authenticationMethod: "JWT",
        authenticationData: Buffer.from(token),
      },
    }
    : { username: "dashboard", password: token };
}

/** Renews the session by AUTH 0x19, and waits for AUTH 0x00. */
function renew(client, token) {
  return new Promise((resolve, reject) => {
    client.once("packetreceive", (packet) => {
      if (packet.cmd === "auth" && packet.reasonCode === 0) {
        resolve();
      } else {
        reject(new Error(`not AUTH 0x00: ${packet.cmd} ${packet.reasonCode}`));
      }
    });
    client._sendPacket({
      cmd: "auth",
      reasonCode: 0x19,
      properties: {
        authenticationMethod: "JWT",
        authenticationData: Buffer.from(token),
      },
    });
  });
}

async function main() {
  const [how, version, host, wssPort, origin, mqttPort, deviceDir, topic, count, token, next] =
    process.argv.slice(2);
  const read = (name) => fs.readFileSync(path.join(deviceDir, name));
  const common = {
    protocolVersion: Number(version),
    host,
    ca: read("ca.pem"),
    reconnectPeriod: 0,
    connectTimeout: WITHIN_MILLIS,
  };
  const dashboard = await mqtt.connectAsync({
    ...common,
    ...credential(how, token),
    protocol: "wss",
    port: Number(wssPort),
    path: "/mqtt",
    wsOptions: { origin },
    clientId: "wall",
  }, false);
  const received = [];
  let arrived = () => {};
  dashboard.on("message", (name, payload, packet) => {
    received.push([name, payload.toString(), packet.qos]);
    arrived();
  });
  const granted = await dashboard.subscribeAsync(topic, { qos: 2 });
  assert.deepStrictEqual(granted.map((grant) => grant.qos), [2]);
  const device = await mqtt.connectAsync({
    ...common,
    protocol: "mqtts",
    port: Number(mqttPort),
    clientId: JSON.parse(read("connect.json")).client_id,
    cert: read("cert.pem"),
    key: read("key.pem"),
  }, false);
  const counts = [];
  for (const qos of [0, 1, 2]) {
    const sent = Array.from({ length: Number(count) }, (_, n) => [topic, `${qos}-${n}`, qos]);
    await Promise.all(sent.map(([name, payload]) => device.publishAsync(name, payload, { qos })));
    while (received.length < sent.length) {
      await new Promise((resolve) => { arrived = resolve; });
    }
    assert.deepStrictEqual(received.splice(0), sent);
    counts.push(sent.length);
    if (how === "method" && qos === 0) {
      await renew(dashboard, next);
    }
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
