// MQTT.js against Avow: one device publishes, one dashboard subscribes, at every QoS.
//
// Usage: node client.js VERSION HOST PORT DEVICE_DIR DASHBOARD_DIR TOPIC COUNT [ORIGIN]
//
// VERSION is 4 (3.1.1) or 5. With an ORIGIN both go over WebSocket, as a page of that Origin would.
// Prints one JSON object: how many messages arrived at each QoS, in order and unchanged. Ends with
// an error on whatever else happens.
"use strict";

const { connect, publish, run, subscribe } = require("./common");

run(async () => {
  const [version, host, port, deviceDir, dashboardDir, topic, count, origin] =
    process.argv.slice(2);
  // Made anew for each client: MQTT.js writes the certificate into wsOptions.
  const transport = () => (origin
    ? { protocol: "wss", path: "/mqtt", wsOptions: { origin } }
    : { protocol: "mqtts" });
  const to = (directory) => connect(Number(version), host, Number(port), directory, transport());
  const dashboard = await to(dashboardDir);
  const take = await subscribe(dashboard, topic);
  const device = await to(deviceDir);
  const arrived = await publish(device, topic, Number(count), take);
  await device.endAsync();
  await dashboard.endAsync();
  console.log(JSON.stringify({ arrived }));
});
