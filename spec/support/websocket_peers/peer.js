// SPDX-License-Identifier: Apache-2.0
// A WebSocket service that echoes, or a client that checks one, over the package `ws`:
//   peer.js echo PORT        peer.js ask URL
'use strict';
const assert = require('assert');
const WebSocket = require(process.env.WS_PACKAGE);

function serve(port) {
  const server = new WebSocket.Server({
    host: '127.0.0.1', port, maxPayload: 0, perMessageDeflate: { threshold: 100 }
  });
  server.on('connection', (socket) => {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
}

async function ask(url) {
  const socket = new WebSocket(url, { perMessageDeflate: { threshold: 100 } });
  const waiting = [];
  const come = [];
  socket.on('message', (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    if (waiting.length) waiting.shift()(message);
    else come.push(message);
  });
  const next = () => (come.length ? Promise.resolve(come.shift()) : new Promise((resolve) => waiting.push(resolve)));
  await new Promise((resolve, reject) => {
    socket.on('open', resolve);
    socket.on('error', reject);
  });
  assert.match(socket.extensions, /permessage-deflate/);
  for (const size of [0, 1, 125, 126, 65535, 65536, 1000000]) {
    for (const message of ['\u00e4'.repeat(size), Buffer.alloc(size, 7)]) {
      socket.send(message);
      assert.deepStrictEqual(await next(), message);
    }
  }
  socket.send('in ', { fin: false });
  socket.send('two', { fin: true });
  assert.strictEqual(await next(), 'in two');
  const pong = new Promise((resolve) => socket.on('pong', resolve));
  socket.ping('are you there');
  assert.strictEqual((await pong).toString(), 'are you there');
  for (let i = 0; i < 500; i++) socket.send(String(i));
  for (let i = 0; i < 500; i++) assert.strictEqual(await next(), String(i));
  const closed = new Promise((resolve) => socket.on('close', (code, reason) => resolve([code, reason.toString()])));
  socket.close(4000, 'enough');
  assert.deepStrictEqual(await closed, [4000, 'enough']);
  console.log('all well');
}

if (process.argv[2] === 'echo') serve(Number(process.argv[3]));
else ask(process.argv[3]).catch((why) => { console.error(why); process.exit(1); });
