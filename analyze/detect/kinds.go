package detect

import (
	"math/bits"
	"time"

	"jindan/analyze/flow"
	"jindan/capture"
)

// kinds tells the requests of one service apart by their size, so that like is compared with like: what
// one program asks again has the same size again (a GET of the same name, the same command of a database), and a request
// that waits on purpose (a long poll, BLPOP) is hardly ever as long as one that does not.
type kinds struct {
	exact [exactKinds]kind
	index [2 * exactKinds]uint8 // by the hash of a size, or behind that: where in exact it is, plus one; 0: no further
	n     int
	rough [33]kind // by the number of bits of the size, for sizes beyond the exact ones
}

// kind is what is known of the requests of one size.
type kind struct {
	size     uint32
	fast     uint32 // answered in time
	slow     uint32 // not answered in time, while it was not known whether that is usual
	needless uint32 // after which the client went on although there was no answer yet: a window update of HTTP/2, a record of a log
	unasked  uint32 // after which the server went on by itself when its answer had stood still: events, a chat, progress
	first    capture.Instant
	usual    bool   // is answered in time, as a rule: when it is not, something is wrong
	complete uint32 // answers that were seen to their end
	shortest uint32 // bytes of the shortest of them
	longest  uint32
	run      lateRun
}

const (
	// exactKinds bounds the sizes that are told apart for each service: 88 bytes each.
	exactKinds = 64
	// greetingKind is the "request" of a client that only connects and waits to be greeted; moreSegments marks requests of
	// which more came after the first segment. No segment is as long.
	greetingKind = 1 << 31
	moreSegments = 1 << 30
	// usuallyFast: a kind that was slow at first becomes usual when it was answered in time so many times as often.
	usuallyFast = 20
	// wellKnown: the next answer is shorter than the shortest of so many by chance once in 21.
	wellKnown = 20
)

// habit is what makes a kind usual: so many answers in time, over so long a time.
type habit struct {
	answers uint32
	time    time.Duration
}

func (k *kinds) of(size uint32) *kind {
	x, free := k.known(size)
	if x != nil {
		return x
	}
	if k.n < exactKinds {
		k.n++
		*free, k.exact[k.n-1] = uint8(k.n), kind{size: size}
		return &k.exact[k.n-1]
	}
	return &k.rough[bits.Len32(size)]
}

// known returns the kind of that very size, or, if there is none, the place in the index for it.
func (k *kinds) known(size uint32) (x *kind, free *uint8) {
	for h := size * 0x9e3779b1 >> 25; ; h++ { // half of the places are free
		at := &k.index[h%uint32(len(k.index))]
		if *at == 0 {
			return nil, at
		}
		if x := &k.exact[*at-1]; x.size == size {
			return x, nil
		}
	}
}

// request is the kind of c's newest request, which began at since.
func request(c *flow.Conn, since capture.Instant) uint32 {
	if c.RequestLast() != since {
		return c.RequestLen() | moreSegments
	}
	return c.RequestLen()
}

// answered notes an answer in time.
func (k *kind) answered(h habit, now capture.Instant) {
	if k.fast++; k.first == 0 {
		k.first = now
	}
	k.run.inTime()
	k.usual = k.fast >= h.answers && now.Sub(k.first) >= h.time && k.fast >= usuallyFast*k.slow && k.fast >= usuallyFast*k.needless && !k.pushes()
}

// pushes reports whether what the server sends comes when it likes, more than as an answer: to be late for that, or to pause in the
// middle of it, means nothing.
func (k *kind) pushes() bool {
	return 2*k.unasked > k.fast
}

// went notes that the server went on by itself.
func (k *kind) went() {
	k.unasked++
	k.usual = k.usual && !k.pushes()
}

// ignored notes that the client went on without an answer.
func (k *kind) ignored() {
	k.needless++
	k.usual = k.usual && k.fast >= usuallyFast*k.needless
}

// waits notes a request without an answer in time, and reports whether that is unusual.
func (k *kind) waits() bool {
	if !k.usual {
		k.slow++
	}
	return k.usual
}

// late notes a request of that size without an answer in time, and reports whether that is unusual. Who goes on to ask without an answer
// waits for the first one all the same, if its like are answered, and are not followed by more, as a rule.
func (k *kinds) late(size uint32) bool {
	return k.of(size).waits() || size&(moreSegments|greetingKind) == moreSegments && k.of(size&^moreSegments).usual
}

// whole notes how long an answer was.
func (k *kind) whole(size uint32) {
	if k.complete == 0 || size < k.shortest {
		k.shortest = size
	}
	k.longest = max(k.longest, size)
	k.complete++
}

// cut reports whether the newest answer on c is shorter, so far, than nine tenths of every one before. Where these vary, each tenth is the
// shortest of ten: then it must lie below the shortest by a larger factor than that lies below the longest, and the shortest of
// few is no bound.
func (k *kind) cut(c *flow.Conn, h habit) bool {
	least := float64(k.shortest)
	if k.complete < h.answers || k.complete < wellKnown && 10*k.shortest < 9*k.longest {
		return false
	}
	return 10*float64(c.AnswerBytes())*float64(k.longest) < 9*least*least
}
