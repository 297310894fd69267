// MQTT.js with a token against Avow's WebSockets: a dashboard without a certificate subscribes, a
// device with one publishes over MQTT at every QoS.
//
// Usage: node token.js HOW VERSION HOST WSS_PORT ORIGIN MQTT_PORT DEVICE_DIR TOPIC COUNT TOKEN NEXT
//
// HOW is password (TOKEN in the password field) or method (MQTT 5 enhanced authentication; NEXT
// renews it between QoS 0 and 1). Prints one JSON object: how many messages arrived at each QoS, in
// order and unchanged. Ends with an error on whatever else happens.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const mqtt = require("mqtt");
const { common, connect, publish, run, subscribe } = require("./common");

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

run(async () => {
  const [how, version, host, wssPort, origin, mqttPort, deviceDir, topic, count, token, next] =
    process.argv.slice(2);
  const dashboard = await mqtt.connectAsync({
    ...common(Number(version)),
    ...credential(how, token),
    protocol: "wss",
    host,
    port: Number(wssPort),
    path: "/mqtt",
    wsOptions: { origin },
    ca: fs.readFileSync(path.join(deviceDir, "ca.pem")),
    clientId: "wall",
  }, false);
  const take = await subscribe(dashboard, topic);
  const device = await connect(Number(version), host, Number(mqttPort), deviceDir);
  const arrived = await publish(device, topic, Number(count), take, async (qos) => {
    if (how === "method" && qos === 0) {
      await renew(dashboard, next);
    }
  });
  await device.endAsync();
  await dashboard.endAsync();
  console.log(JSON.stringify({ arrived }));
});
