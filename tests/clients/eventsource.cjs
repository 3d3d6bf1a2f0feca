// Follows the stream at the address in its first argument as a web page would: what it gets is
// printed, and that a lost connection comes back is left to EventSource.
const EventSource = require("eventsource");

const stream = new EventSource(process.argv[2]);
stream.onmessage = ({ data, lastEventId }) => {
  const frame = JSON.parse(data);
  if (frame.type === "row") console.log(frame.op, frame.new.id, lastEventId === frame.cursor);
  else if (frame.type === "subscribed") console.log(frame.type);
};
stream.onerror = ({ status }) => console.log(status ? `refused ${status}` : "lost");
