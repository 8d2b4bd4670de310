// Clients of MQTT.js that do what they are told; the same language as paho_client.py.

const fs = require("node:fs");
const readline = require("node:readline");
const mqtt = require("mqtt");

const clients = new Map();

function say(client, event, more) {
  process.stdout.write(JSON.stringify({ client, event, ...more }) + "\n");
}

function connect(name, order) {
  const scheme = (order.websocket ? "ws" : "mqtt") + (order.ca ? "s" : "");
  const path = order.websocket ? "/mqtt" : "";
  const options = {
    clientId: order.client_id,
    protocolVersion: order.version,
    clean: !order.lasts,
    keepalive: 60,
    reconnectPeriod: 0,
  };
  if (order.version === 5 && order.lasts) options.properties = { sessionExpiryInterval: 3600 };
  if (order.ca) options.ca = fs.readFileSync(order.ca);
  if (order.cert) {
    options.cert = fs.readFileSync(order.cert);
    options.key = fs.readFileSync(order.key);
  }
  if (order.user) {
    options.username = order.user;
    options.password = order.password;
  }
  if (order.will) options.will = { ...order.will, payload: Buffer.from(order.will.payload) };
  const client = mqtt.connect(`${scheme}://${order.host}:${order.port}${path}`, options);
  let wasConnected = false;
  client.on("connect", (connack) => {
    wasConnected = true;
    say(name, "connected", { session_present: connack.sessionPresent });
  });
  client.on("message", (topic, payload, packet) => {
    say(name, "message", { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain });
  });
  client.on("error", (error) => {
    if (!wasConnected && typeof error.code === "number") say(name, "refused", { code: error.code });
    else process.stderr.write(`${name}: ${error}\n`);
  });
  client.on("close", () => say(name, "closed", {}));
  clients.set(name, client);
}

function obey(client, order) {
  const name = order.client;
  const failed = (error) => process.stderr.write(`${name}: ${order.do}: ${error}\n`);
  switch (order.do) {
    case "subscribe":
      client.subscribe(order.topic, { qos: order.qos }, (error, granted, packet) => {
        if (error) failed(error);
        say(name, "subscribed", { codes: packet ? packet.granted : [] });
      });
      break;
    case "publish":
      client.publish(order.topic, order.payload, { qos: order.qos, retain: order.retain }, (error) => {
        if (error) failed(error);
        else say(name, "published", {});
      });
      break;
    case "disconnect":
      client.end();
      break;
    case "vanish":
      client.stream.destroy();
      break;
    default:
      throw new Error(`no such order: ${order.do}`);
  }
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  if (order.do === "connect") connect(order.client, order);
  else obey(clients.get(order.client), order);
}).on("close", () => process.exit(0));
