// Package typha is the fan-out between one store and many agents: it watches the store once, encodes every object once,
// and serves any number of clients from that. Both ends are here: [Server], and [Client], which is a store.Store for
// reading, so that an agent does the same with and without it. The package knows no store but the interface, decides
// nothing about policy, and changes in the store only what an agent says of itself.
//
//	                             +--> state: object -> its bytes --> snapshot: chunks, compressed once, for all
//	store.Follow --> cache ------+                                                      |
//	                             +--> crumb -> crumb -> crumb -> (next)                 v
//	                                    ^                ^                    peer: snapshot, then every crumb
//	                                  client a        client b                      | TCP or TLS, 5473
//	                                  (a cursor is a pointer)                       v
//	                                                                     Client: List, Watch --> store.Follow
//
// # Crumbs
//
// What the store delivers is gathered for at most [ServerConfig.Window] and becomes a crumb: one frame of bytes, made
// once, in a linked list. A client is a pointer into the list; those at its end are called when there is another. A client
// whose turn comes late finds several crumbs and gets them in one write, so that the server does less work per change when
// there is more to do. Crumbs are held up to a number and a size. A client that comes back after a
// broken connection names the last crumb it has and goes on behind it if that is still held, without a snapshot.
//
// # Transport
//
// Frames are a length of four bytes, a type and a payload, on one TCP connection, with TLS or without (see frame.go for the
// types). gRPC, which the store's client uses, was considered: a stream costs the server three goroutines and two buffers
// of 32 KiB for each client, its flow control and framing are per client work where here the same bytes go to all, and
// what it is good at (deadlines, cancellation, many streams) is not needed here. This transport takes one goroutine, which
// reads, and no buffer; writing is done in turns (turns.go), in the order in which clients were called, by one goroutine
// for each processor that never waits for a socket. `make bench` has the figures. It is not the incumbent's protocol, which
// is Go's gob of its internal types: agents of one make need the typha of the same make.
//
// # What is refused
//
// Clients are strangers until they have shown a certificate and said who they are, and even then they get no memory on
// their word: every frame has a limit by who sends it, a handshake has a time and there is a limit to how many there are
// at once (the oldest gives way, and first of all those of an address that has too many, so that stalled ones keep nobody
// out), a client has a limited number of requests under way, and whoever does not read is cut off. None of this makes another
// client wait.
//
// # When the store is lost
//
// A server accepts no clients before it has a complete state. If it loses its store it tells its clients, whose Watch
// then says what a direct one would, and gives no snapshot to new ones until it is back: an agent that starts rather
// keeps what is in its kernel than goes back to an older state. A client that comes from another instance says how far
// it was, and the server does not hand it an older state while it catches up.
//
// # What agents write
//
// An agent registers its Node and reports its status. The server forwards that to the store with its own credentials, so
// that an agent needs none and the store has one connection and not thousands: a report and a Node only for the name
// with which the client introduced itself, a bounded number at once. In the same way it asks for the pods on the network of
// its host, which are no endpoints and so in no stream. Everything else is refused with store.ErrNotSupported.
package typha
