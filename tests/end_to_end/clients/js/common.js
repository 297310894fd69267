// What the scripts have in common: certificates, messages at every QoS, an end in time.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const mqtt = require("mqtt");

const WITHIN_MILLIS = 20_000;

/** What every connection here says. */
function common(version) {
  return { protocolVersion: version, reconnectPeriod: 0, connectTimeout: WITHIN_MILLIS };
}

/** Connects with the certificate that `avow device add` wrote into `directory`. */
function connect(version, host, port, directory, options = { protocol: "mqtts" }) {
  const read = (name) => fs.readFileSync(path.join(directory, name));
  const clientId = JSON.parse(read("connect.json")).client_id;
  const [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(read);
  const shown = { clientId, ca, cert, key };
  return mqtt.connectAsync({ ...common(version), host, port, ...shown, ...options }, false);
}

/** Subscribes; a function that waits for so many messages and takes them. */
async function subscribe(dashboard, topic) {
  const received = [];
  let arrived = () => {};
  dashboard.on("message", (name, payload, packet) => {
    received.push([name, payload.toString(), packet.qos]);
    arrived();
  });
  const granted = await dashboard.subscribeAsync(topic, { qos: 2 });
  assert.deepStrictEqual(granted.map((grant) => grant.qos), [2]);
  return async (count) => {
    while (received.length < count) {
      await new Promise((resolve) => { arrived = resolve; });
    }
    return received.splice(0);
  };
}

/**
 * Publishes `count` messages at each QoS, all of which `take` must get, in order and unchanged;
 * `after` is called with each QoS then. How many there were of each.
 */
async function publish(device, topic, count, take, after = async () => {}) {
  const counts = [];
  for (const qos of [0, 1, 2]) {
    const sent = Array.from({ length: count }, (_, n) => [topic, `${qos}-${n}`, qos]);
    await Promise.all(sent.map(([name, payload]) => device.publishAsync(name, payload, { qos })));
    assert.deepStrictEqual(await take(sent.length), sent);
    counts.push(sent.length);
    await after(qos);
  }
  return counts;
}

/** Runs a script, which must end in time and without an error. */
function run(main, withinMillis = WITHIN_MILLIS) {
  const late = setTimeout(() => {
    console.error("not done in time");
    process.exit(1);
  }, withinMillis);
  main().then(
    () => clearTimeout(late),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}

module.exports = { common, connect, publish, run, subscribe };
