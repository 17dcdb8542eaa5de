package wire

import "time"

// The clocks of one attempt. Who waits for a host waits by one of these; where two run
// at once, the one that ends first counts. The sections are those of RFC 5321
// §4.5.3.2, which says how long a client should wait at least.
//
//	clock              bounds                                      length                            §4.5.3.2
//	connect            the dial                                    delivery.connect_timeout, 30 s
//	handshake          the TLS handshake, and EHLO after it where  delivery.handshake_timeout, 30 s
//	                   a session ticket was offered
//	reply              each reply, and each chunk of 64 KiB sent   delivery.command_timeout, 5 min   .1 to .5
//	finalWithin        the reply to the message                    2 × reply                         .6
//	transactionWithin  all of a transaction                        6 × reply, and a second a KiB
//	attemptWithin      all of an attempt: no connection is begun   3 × reply + 4 × (connect + handshake)
//	                   after it
//	chunkWithin        the reply to a chunk that is not the last   1 min, reply
//	syncWithin         what says whether the replies are in step   30 s, 2 × reply
//	textWithin         a reply, after a line without a code        2 s
//	lastWordsWithin    a reply, after a write has failed           1 s, reply
//	earlyWithin        a reply that came in the middle of content  50 ms
//
// RFC 5321 has two to ten minutes for these, so that the defaults are short where the
// next host may do better (.1: 5 min for the greeting), and by the book where all of
// the message is out (.6: 10 min). An operator may ask for more.
//
// Three clocks are not about a host: Job.Patience bounds the wait for a connection that
// others have, askEvery and demandsHold (gate.go) the age of what the sender demands.
type Clocks struct {
	Connect, Handshake, Reply time.Duration
}

const (
	ChunkWithin     = time.Minute
	SyncWithin      = 30 * time.Second
	TextWithin      = 2 * time.Second
	lastReplyWithin = time.Second
	earlyWithin     = 50 * time.Millisecond

	// slowest is the rate in octets per second below which a peer is taken for a
	// tarpit, on top of the patience for each step.
	slowest = 1024
)

func FinalWithin(reply time.Duration) time.Duration { return 2 * reply }

func TransactionWithin(reply time.Duration, size int64) time.Duration {
	return 6*reply + time.Duration(size/slowest)*time.Second
}

// AttemptWithin is when an attempt opens no further connection: what is untried then
// counts as unreachable.
func (c Clocks) AttemptWithin() time.Duration {
	return 3*c.Reply + 4*(c.Connect+c.Handshake)
}
