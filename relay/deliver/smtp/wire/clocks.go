package wire

import "time"

// Clocks are all that bounds the time of one attempt. Where two of them run, the one that
// ends first counts. The last column is the section of RFC 5321 §4.5.3.2, which says how
// long a client should wait at least; the defaults comply with it.
//
//	clock              bounds                                    length                           RFC
//	Connect            the dial                                  delivery.connect_timeout, 30 s
//	Handshake          the TLS handshake, and after one that     delivery.handshake_timeout, 30 s
//	                   offered a ticket, EHLO
//	Reply              each reply, and each 64 KiB sent          delivery.command_timeout, 5 min  .1 to .5
//	FinalWithin        the reply to the message                  2 × Reply                        .6
//	ChunkWithin        the reply to a chunk that is not the      1 min, or Reply
//	                   last: without one, DATA is tried
//	SyncWithin         finding out whether replies are in step   30 s, or 2 × Reply
//	TextWithin         a reply, after a line without a code      2 s
//	lastReplyWithin    a reply, after a write has failed         1 s, or Reply
//	earlyWithin        a reply that came amid the content        50 ms
//	quitWithin         QUIT, and closing                         100 ms
//	TransactionWithin  the whole transaction                     6 × Reply, and 1 s a KiB
//	AttemptWithin      the whole attempt: after it no            3 × Reply, and
//	                   connection is opened                      4 × (Connect + Handshake)
//
// Job.Patience bounds the wait for a connection that other attempts have. How old an answer
// may be that the demands still stand is in gate.go of relay/deliver.
type Clocks struct {
	Connect, Handshake, Reply time.Duration
}

// The clocks that are the same everywhere.
const (
	ChunkWithin     = time.Minute
	SyncWithin      = 30 * time.Second
	TextWithin      = 2 * time.Second
	lastReplyWithin = time.Second
	earlyWithin     = 50 * time.Millisecond
	quitWithin      = 100 * time.Millisecond
)

// slowest is the rate, in octets per second, below which a host counts as a tarpit.
const slowest = 1024

// FinalWithin bounds the reply to the message, where reply bounds all others.
func FinalWithin(reply time.Duration) time.Duration { return 2 * reply }

// TransactionWithin bounds a transaction with size octets of content.
func TransactionWithin(reply time.Duration, size int64) time.Duration {
	return 6*reply + time.Duration(size/slowest)*time.Second
}

// AttemptWithin bounds an attempt. What it has not tried by then counts as unreachable.
func (c Clocks) AttemptWithin() time.Duration {
	return 3*c.Reply + 4*(c.Connect+c.Handshake)
}
