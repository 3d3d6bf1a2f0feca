// What one would write instead, first way: read the slot with pg-logical-replication, keep the
// subscribers in a set, and test each of them for each change.
'use strict';

const { LogicalReplicationService, PgoutputPlugin } = require('pg-logical-replication');
const { WebSocketServer } = require('ws');

const { PORT, PGHOST, PGPORT, PGUSER, PGDATABASE, SLOT, PUBLICATION } = process.env;

const subscriptions = new Set();

const server = new WebSocketServer({
  host: '127.0.0.1', port: Number(PORT), backlog: 4096, perMessageDeflate: false,
});

server.on('connection', (socket) => {
  socket.on('error', () => socket.terminate());
  socket.on('message', (bytes) => {
    const { table, column, value } = JSON.parse(bytes);
    const subscription = { socket, table, column, value: value === undefined ? undefined : String(value) };
    subscriptions.add(subscription);
    socket.on('close', () => subscriptions.delete(subscription));
    socket.send(JSON.stringify({ type: 'subscribed' }));
  });
});

// bigint columns come as BigInt or as text, as the type parser has it; JSON has neither.
const plain = (_, value) => (typeof value === 'bigint' ? Number(value) : value);

const wants = (subscription, relation, row) =>
  subscription.table === relation.name
  && (subscription.column === undefined || String(row[subscription.column]) === subscription.value);

const replication = new LogicalReplicationService(
  { host: PGHOST, port: Number(PGPORT), user: PGUSER, database: PGDATABASE },
  { acknowledge: { auto: true, timeoutSeconds: 5 } },
);

replication.on('error', (error) => console.error('replication:', error.message));
replication.on('data', (_lsn, message) => {
  if (message.tag !== 'insert' && message.tag !== 'update' && message.tag !== 'delete') return;
  const row = message.new ?? message.old ?? message.key;
  let text; // made for the first who wants it, shared by the others
  for (const subscription of subscriptions) {
    if (!wants(subscription, message.relation, row)) continue;
    text ??= JSON.stringify(
      { type: 'row', op: message.tag, table: `${message.relation.schema}.${message.relation.name}`, new: row }, plain,
    );
    subscription.socket.send(text);
  }
});

server.on('listening', async () => {
  const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: [PUBLICATION] });
  for (;;) {
    try {
      await replication.subscribe(plugin, SLOT);
    } catch (error) {
      console.error('subscribe:', error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
});
