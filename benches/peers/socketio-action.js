// What one would write instead, third way: the application's own action writes the row and tells
// the Socket.IO rooms that it concerns. Whatever writes by another way is not seen.
'use strict';

const http = require('node:http');
const { Pool } = require('pg');
const { Server } = require('socket.io');

const COLUMNS = {
  locations: ['driver_id', 'lat', 'lng', 'heading', 'speed', 'status', 'seq', 'sent_at_us', 'note'],
  orders: ['customer_id', 'status', 'total_cents', 'currency', 'seq', 'sent_at_us', 'note'],
};

const pool = new Pool({ max: 4 }); // host, port, user and database from the environment

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks));
}

async function insert(table, rows) {
  const columns = COLUMNS[table];
  const values = rows.flatMap((row) => columns.map((column) => row[column]));
  const tuples = rows.map((_, at) => {
    const first = at * columns.length + 1;
    return `(${columns.map((_column, offset) => `$${first + offset}`).join(',')})`;
  });
  const sql = `insert into ${table} (${columns.join(',')}) values ${tuples.join(',')} returning *`;
  return (await pool.query(sql, values)).rows;
}

const server = http.createServer(async (request, response) => {
  try {
    const { table, rows } = await body(request);
    for (const row of await insert(table, rows)) {
      let rooms = io.to(table);
      if (row.customer_id !== undefined) rooms = rooms.to(`customer:${row.customer_id}`);
      rooms.emit('change', { type: 'row', op: 'insert', table, new: row });
    }
    response.writeHead(204).end();
  } catch (error) {
    console.error(error);
    response.writeHead(500).end();
  }
});
server.keepAliveTimeout = 600_000;

const io = new Server(server, { transports: ['websocket'], serveClient: false });
io.on('connection', (socket) => {
  socket.on('join', (room, acknowledge) => {
    socket.join(room);
    acknowledge('joined');
  });
});

server.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096 });
