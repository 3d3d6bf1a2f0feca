// What one would write instead, second way: a trigger sends each row by NOTIFY, this listens and
// emits it to the Socket.IO rooms that it concerns.
'use strict';

const { Client } = require('pg');
const { Server } = require('socket.io');

const io = new Server({ transports: ['websocket'], serveClient: false });

io.on('connection', (socket) => {
  socket.on('join', (room, acknowledge) => {
    socket.join(room);
    acknowledge('joined');
  });
});

async function main() {
  const client = new Client(); // host, port, user and database from the environment
  await client.connect();
  client.on('notification', ({ payload }) => {
    const change = JSON.parse(payload);
    let rooms = io.to(change.table);
    if (change.new.customer_id !== undefined) rooms = rooms.to(`customer:${change.new.customer_id}`);
    rooms.emit('change', change);
  });
  await client.query('listen changes');
  const http = require('node:http').createServer();
  io.attach(http);
  http.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096 });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
