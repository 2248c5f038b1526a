package flow

import "jindan/capture"

// observe takes a packet with payload of a DNS port.
func (t *dnsTable) observe(p *capture.Packet, at capture.Instant, emit func(*Event)) {
	if multicastDNS(p) {
		return
	}
	if p.Proto == capture.ProtoUDP {
		t.message(p, p.Data, p.Len, at, emit)
		return
	}
	f := t.tcp.get(p, &t.stats)
	for b, n := f.place(p, &t.stats); n > 0; {
		msg, size, used := f.stream.next(b, n)
		if size > 0 {
			t.message(p, msg, uint32(size), at, emit)
		}
		b, n = b[min(used, len(b)):], n-used
	}
}

// multicastDNS reports LLMNR (RFC 4795), mDNS (RFC 6762) between their own ports and whatever else is asked of a
// group on another port than 53, which are left out. A name server asked by an address of its own on mDNS's port is
// one like others.
func multicastDNS(p *capture.Packet) bool {
	return p.Src.Port != portDNS && p.Dst.Port != portDNS && (p.Src.Port == portLLMNR || p.Dst.Port == portLLMNR ||
		p.Src.Port == portMDNS && p.Dst.Port == portMDNS || group(&p.Dst.Addr))
}

// group reports a multicast address (RFC 1112 §4, RFC 4291 §2.7) or the limited broadcast (RFC 919).
func group(a *capture.Addr) bool {
	if a[0] == 0xff {
		return true
	}
	ip := a.Netip()
	return ip.Is4() && (ip.IsMulticast() || ip.As4() == [4]byte{255, 255, 255, 255})
}

// IANA service names and port numbers.
const (
	portDNS   = 53
	portMDNS  = 5353
	portLLMNR = 5355
)

// message takes one DNS message of size bytes, of which b was captured.
func (t *dnsTable) message(p *capture.Packet, b []byte, size uint32, at capture.Instant, emit func(*Event)) {
	// Whatever is wrong with the question: id and flags pair the message.
	if err := t.msg.parse(b); err == errDNSShort {
		t.stats.Malformed++
		return
	}
	t.stats.Messages++
	d := t.find(byID, &DNS{Client: p.Src, Server: p.Dst, Proto: p.Proto, ID: t.msg.ID})
	if t.msg.Response {
		t.stats.Responses++
		if d == nil || d.Answered {
			if d == nil {
				t.stray(p, size, at, emit)
			}
			t.orphan(d, p, size, at)
			return
		}
		t.answer(d, p, size, at, emit)
		return
	}
	t.stats.Queries++
	if d != nil && !d.Answered && at.Sub(d.First) < dnsSameID {
		t.again(d, p, size, at, emit)
		return
	}
	t.query(p, size, at, emit)
}

// query opens a transaction.
func (t *dnsTable) query(p *capture.Packet, size uint32, at capture.Instant, emit func(*Event)) {
	n, d := t.add()
	d.Client, d.Server, d.Proto = p.Src, p.Dst, p.Proto
	d.First, d.Last, d.LookupAt = at, at, at
	d.QueryFrame, d.QueryLen, d.EDNSSize, d.Tries = p.Frame, size, t.msg.EDNSSize, 1
	d.Iterative = !t.msg.RD
	t.stats.Transactions++
	d.Number, d.Lookup, d.Resolver = t.stats.Transactions, t.stats.Transactions, t.resolvers.get(resolverPair{d.Client.Addr, d.Server}, t.window)
	old, asked := t.find(byID, d), t.find(byName, d)
	d.KeepsID = t.keepsID(n, d)
	// The same id from the same socket is the same caller; else the question may be somebody else's.
	before := old
	again := repeats(d, old)
	if again {
		t.keepers.keeps(d.Client.Addr)
	} else {
		before = asked
		again = repeats(d, asked) && !(d.KeepsID && apart(d, asked)) && !t.anew(d, asked)
	}
	switch {
	case again:
		d.LookupAt, d.Lookup, d.Tries, d.Gap = before.LookupAt, before.Lookup, before.Tries, at.Sub(before.Last)
		if d.Tries < 1<<16-1 {
			d.Tries++
		}
	case before != nil && before.Truncated && before.Proto == capture.ProtoUDP && d.Proto == capture.ProtoTCP &&
		at.Sub(before.First) <= dnsRetryMax:
		d.LookupAt, d.Lookup, d.Tries, d.AfterTruncated = before.LookupAt, before.Lookup, before.Tries, true
	}
	if asked != nil && asked.Answered && asked.Tries == 1 {
		d.Period = at.Sub(asked.First)
	}
	t.enter(byID, n, d, old)
	t.enter(byName, n, d, asked)
	t.ev = Event{Kind: DNSQuery, Side: Client, At: at, Since: d.LookupAt, Dur: at.Sub(d.LookupAt),
		Len: size, IPLen: p.IPLen, N: uint32(d.Tries), Frame: p.Frame, DNS: d}
	emit(&t.ev)
	if again {
		t.ev.Kind, t.ev.flag = DNSRepeat, true
		emit(&t.ev)
	}
}

// apart reports whether d is asked under another id than e, and from another port.
func apart(d, e *DNS) bool { return d.Client.Port != e.Client.Port && d.ID != e.ID }

// anew reports whether d, which looks like the next try of e, is another lookup: of a name that is asked for as often
// as this anyway, or of two types at once from a socket of its own. Of one that tries again the other type is tried
// again too, or not asked.
func (t *dnsTable) anew(d, e *DNS) bool {
	if !apart(d, e) {
		return false
	}
	if e.Period > 0 && 2*d.First.Sub(e.First) <= 3*e.Period && 2*e.Period <= 3*d.First.Sub(e.First) {
		return true
	}
	mate := DNS{Client: d.Client, Server: d.Server, NameHash: d.NameHash}
	switch d.QType {
	case dnsTypeA:
		mate.QType = dnsTypeAAAA
	case dnsTypeAAAA:
		mate.QType = dnsTypeA
	default:
		return false
	}
	m := t.find(byName, &mate)
	return m != nil && m.Client.Port == d.Client.Port && m.Tries == 1 && d.First.Sub(m.First) < dnsRetryMin
}

// Types that are asked for together (IANA dns-parameters).
const (
	dnsTypeA    = 1
	dnsTypeAAAA = 28
)

// resolverPair is who asks whom.
type resolverPair struct {
	client capture.Addr
	server capture.Endpoint
}

// again takes a repeat of the query of d under the same id.
func (t *dnsTable) again(d *DNS, p *capture.Packet, size uint32, at capture.Instant, emit func(*Event)) {
	// Sooner than any time-out it is the same packet, captured twice.
	try := at.Sub(d.Last) >= dnsRetryMin
	if try && d.Tries < 1<<16-1 {
		d.Tries++
		d.Repeats++
	}
	if try {
		d.Gap, d.Last = at.Sub(d.Last), at
		t.keepers.keeps(d.Client.Addr)
	}
	of := *d
	n, r := t.add()
	r.Client, r.Server, r.Proto = p.Src, p.Dst, p.Proto
	r.First, r.Last, r.LookupAt = at, at, of.LookupAt
	r.QueryFrame, r.QueryLen, r.EDNSSize, r.Tries = p.Frame, size, t.msg.EDNSSize, of.Tries
	r.Repeat, r.RetransmitOf, r.decided = true, of.QueryFrame, true
	r.Number, r.Lookup, r.Resolver = of.Number, of.Lookup, of.Resolver
	if d.indexed[byID] { // else the new record pushed it out
		r.repeat, d.repeat = d.repeat, t.ref(n)
	} else {
		d = r
	}
	if !try {
		return
	}
	t.ev = Event{Kind: DNSRepeat, Side: Client, At: at, Since: of.First, Dur: at.Sub(of.First),
		Len: size, IPLen: p.IPLen, N: uint32(of.Tries), Frame: p.Frame, DNS: d}
	emit(&t.ev)
}

// answer takes the first answer to d.
func (t *dnsTable) answer(d *DNS, p *capture.Packet, size uint32, at capture.Instant, emit func(*Event)) {
	t.reply(d, p, size)
	d.Answered, d.Answers = true, 1
	d.Latency = at.Sub(d.First)
	t.stats.Answered++
	for r := t.deref(d.repeat); r != nil; r = t.deref(r.repeat) {
		r.OriginalAnswered = true
	}
	kind := DNSAnswer
	if d.Unanswered {
		kind, d.Late = DNSLate, true
		t.stats.Late++
	}
	d.decided = true
	t.ev = Event{Kind: kind, Side: Server, At: at, Since: d.First, Dur: d.Latency,
		Len: size, IPLen: p.IPLen, N: uint32(d.Tries), Frame: p.Frame, DNS: d}
	emit(&t.ev)
}

func (t *dnsTable) reply(d *DNS, p *capture.Packet, size uint32) {
	d.AnswerFrame, d.AnswerLen, d.AnswerIPLen = p.Frame, size, p.IPLen
	d.Rcode, d.Truncated, d.Records = t.msg.Rcode, t.msg.Truncated, t.msg.Answers
}

// strayReach is among how many of the newest records the query of an answer from another address is looked for: at
// 1,000 queries a second those of a quarter of a second.
const strayReach = 256

// stray looks for the query that an answer without one belongs to if its address is not looked at.
func (t *dnsTable) stray(p *capture.Packet, size uint32, at capture.Instant, emit func(*Event)) {
	if len(t.msg.Name) == 0 {
		return
	}
	for n := t.head; n > t.tail && t.head-n < strayReach; n-- {
		d := t.at(n - 1)
		if d.decided || d.Client != p.Dst || d.ID != t.msg.ID || d.NameHash != t.msg.NameHash || d.QType != t.msg.QType || d.Proto != p.Proto {
			continue
		}
		t.stats.Strays++
		t.ev = Event{Kind: DNSStray, Side: Server, At: at, Since: d.First, Dur: at.Sub(d.First), Len: size, IPLen: p.IPLen,
			N: uint32(d.Tries), Frame: p.Frame, DNS: d, From: p.Src}
		emit(&t.ev)
		return
	}
}

// orphan takes an answer that has no query, or whose query d was answered before.
func (t *dnsTable) orphan(d *DNS, p *capture.Packet, size uint32, at capture.Instant) {
	t.stats.Orphans++
	if d != nil && d.Answers < 1<<16-1 {
		d.Answers++
	}
	_, o := t.add()
	o.Client, o.Server, o.Proto = p.Dst, p.Src, p.Proto
	o.First, o.Last, o.LookupAt = at, at, at
	o.Orphan, o.decided = true, true
	t.reply(o, p, size)
}

// icmp takes an ICMP error about a UDP datagram q between DNS endpoints. About a query it
// means that the server cannot be reached; about an answer, that the client had
// closed its port: it no longer waited (RFC 1122 §4.1.3.1).
func (t *dnsTable) icmp(p, q *capture.Packet, at capture.Instant, emit func(*Event)) {
	id, ok := quotedID(p.Data, q)
	if !ok {
		return
	}
	d := t.find(byID, &DNS{Client: q.Src, Server: q.Dst, Proto: capture.ProtoUDP, ID: id})
	if d == nil {
		return
	}
	t.ev = Event{Kind: ICMPError, Side: Client, At: at, Since: d.First, Dur: at.Sub(d.First),
		N: uint32(p.ICMPType)<<8 | uint32(p.ICMPCode), Frame: p.Frame, DNS: d}
	if d.Client == q.Src {
		d.Unreachable = true
		emit(&t.ev)
		return
	}
	if !d.Answered || d.Late || !portUnreachable(p) {
		return
	}
	d.Late = true
	t.stats.Late++
	t.ev.Kind, t.ev.flag, t.ev.N = DNSLate, true, uint32(d.Tries)
	emit(&t.ev)
}

// portUnreachable: RFC 792 type 3 code 3, RFC 4443 §3.1 type 1 code 4.
func portUnreachable(p *capture.Packet) bool {
	if p.Proto == capture.ProtoICMPv6 {
		return p.ICMPType == 1 && p.ICMPCode == 4
	}
	return p.ICMPType == 3 && p.ICMPCode == 3
}

// quotedID reads the DNS id of the UDP datagram q that an ICMP error quotes, if it quotes
// that far.
func quotedID(b []byte, q *capture.Packet) (uint16, bool) {
	n := 40 // RFC 8200 §3; with extension headers the ports are not there
	if len(b) > 0 && b[0]>>4 == 4 {
		n = int(b[0]&15) * 4
	}
	if len(b) < n+10 || be16(b[n:]) != q.Src.Port || be16(b[n+2:]) != q.Dst.Port {
		return 0, false
	}
	return be16(b[n+8:]), true
}
