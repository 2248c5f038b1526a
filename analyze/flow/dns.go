package flow

import (
	"time"

	"jindan/capture"
)

const (
	// MaxDNS bounds the DNS records: queries, repeats and orphaned answers, pending and
	// finished. At 192 bytes each they take 13 MB.
	MaxDNS = 65_536
	// maxDNSNames bounds the bytes of their names together.
	maxDNSNames = 4 << 20
	// DNSTimeout is when a query counts as unanswered (resolv.conf(5): RES_TIMEOUT, 5 s): the one definition, here and in
	// all detectors.
	DNSTimeout = 5 * time.Second
	// dnsPending is the age below which a query is not called unanswered when the capture ends:
	// the answer may have come later. Proposal: healthy resolvers answer in less, and the
	// lab's slow one takes 2.5 s.
	dnsPending = 2 * time.Second
	// dnsSameID is how long the same id between the same ports means the same question;
	// after that it is a new one (Wireshark's preference dns.retransmission_timer, 5 s).
	dnsSameID = 5 * time.Second
	// dnsRetryMin and dnsRetryMax: a query for what is still unanswered at that age is
	// the next try of a resolver, under a new id or port. The shortest first time-out in use is
	// unbound's 376 ms (iterator, UNKNOWN_SERVER_NICENESS); resolv.conf(5) caps it at 30 s.
	dnsRetryMin = 300 * time.Millisecond
	dnsRetryMax = 30 * time.Second
)

// DNS is one DNS transaction: a query message and its answer, paired as Wireshark does, by
// the two endpoints, transport and id. A repeat within the transaction (same endpoints and id
// within 5 s) has a record of its own, with RetransmitOf, and so has an answer that
// belongs to no query or comes twice (Orphan): both only for the rows.
//
// Of each transaction there is one DNSQuery, and then one DNSAnswer or one DNSUnanswered, unless the
// capture ends before; DNSLate may follow either. DNSRepeat tells of a repeat under the same id
// and, with Flag, after its DNSQuery, of a next try under a new id or port.
//
// It is pointer-free; the name is with the table (Table.DNSName).
type DNS struct {
	Client, Server capture.Endpoint

	First capture.Instant // first query; for an orphan, the answer
	Last  capture.Instant // newest repeat of the query under the same id
	// LookupAt is when the client first asked this server for this name and type: before First
	// if this is a resolver's next try under a new id or port. Latency runs from
	// First, what the caller waited runs from LookupAt.
	LookupAt capture.Instant
	Latency  time.Duration // from First to the first answer; valid if Answered
	Period   time.Duration // since the client last asked this server for this name, if that was answered at once; else 0
	Gap      time.Duration // between the newest query and the one before it; 0: there was one query

	QueryFrame   uint64
	AnswerFrame  uint64
	RetransmitOf uint64 // frame of the query that this one repeats; 0: none
	Number       uint64 // of the transaction, from 1; 0: the record is none
	Record       uint64 // number of this record, see Table.DNSNameOf
	Lookup       uint64 // Number of the transaction in which the client first asked, see LookupAt
	NameHash     uint64 // of the lower-case name

	QueryLen    uint32 // bytes of the query message
	AnswerLen   uint32 // bytes of the answer message: the UDP payload
	AnswerIPLen uint32 // IP length of the packet that brought, or completed, the answer

	ID       uint16
	QType    uint16
	EDNSSize uint16 // UDP payload size that the query offers (RFC 6891 §6.2.3); 0: no EDNS
	Records  uint16 // of the answer section (ANCOUNT)
	Tries    uint16 // how often the client has asked, earlier ids and ports included
	Repeats  uint16 // of these, repeats of this transaction under the same id
	Answers  uint16 // answers to this transaction, copies included

	// Resolver numbers who asks whom, from 1; 0 if there were too many.
	Resolver uint32

	Proto     uint8
	Rcode     uint8
	Answered  bool
	Truncated bool // the answer had TC set: the client should ask again over TCP
	// AfterTruncated: this TCP query follows a truncated answer over UDP.
	AfterTruncated bool
	// Unanswered: DNSUnanswered was reported.
	Unanswered bool
	// Late: the answer came after DNSUnanswered, or the client's host refused it.
	Late bool
	// Unreachable: ICMP said that the query could not be delivered.
	Unreachable bool
	// Iterative: the query does not ask for recursion (RFC 1035 §4.1.1, RD): it is a resolver's, and who answers it
	// knows the answer or says who does.
	Iterative bool
	// KeepsID: its host asks again, here or at another server, under the id of the first query.
	KeepsID bool
	// Repeat: the record is a repeat of RetransmitOf's query. OriginalAnswered: that one was answered.
	Repeat           bool
	OriginalAnswered bool
	Orphan           bool

	nameLen uint8
	decided bool // answered, reported unanswered, or never a transaction
	indexed [indexes]bool
	bucket  [indexes]uint16 // where its chains begin
	next    [indexes]uint32 // chains of the indexes: record number + 1
	nameOff uint32
	repeat  uint32 // newest repeat of this transaction, and from there the one before
}

// Waited is how long the caller has waited for the answer, over all tries.
func (d *DNS) Waited() time.Duration { return d.First.Sub(d.LookupAt) + d.Latency }

// Pending reports whether nothing is decided: no answer, and not called unanswered.
func (d *DNS) Pending() bool { return !d.decided }

// DNSStats are the DNS table's counters.
type DNSStats struct {
	Messages     uint64 // DNS messages read
	Malformed    uint64 // payload of port 53 that is no DNS message
	Queries      uint64 // query messages, repeats included
	Transactions uint64 // queries, repeats under the same id not counted
	Responses    uint64 // answer messages
	Answered     uint64 // transactions
	Unanswered   uint64 // transactions: DNSUnanswered was reported
	Pending      uint64 // transactions too young at the end of the input to be called unanswered
	Late         uint64
	Strays       uint64 // answers from another address than the one that was asked
	Orphans      uint64 // answers without a query, and second answers
	Evicted      uint64 // records dropped before it was decided whether they are answered, because the table was full
	Streams      uint64 // DNS over TCP connections dropped because the table was full
	LostTCP      uint64 // gaps in the payload of DNS over TCP
}

// OneWay reports whether there are queries, but not one answer to anybody: then the capture
// lacks a direction, and no query can be called unanswered.
func (s *DNSStats) OneWay() bool { return s.Queries > 0 && s.Responses == 0 }

// DNSStats returns the DNS counters.
func (t *Table) DNSStats() *DNSStats { return &t.dns.stats }

// DNSName returns the name that d asks for: lower case, as in a zone file, without the final
// dot. It is empty if the question was not captured. d must be of this table, and not older
// than the call that handed it out.
func (t *Table) DNSName(d *DNS) string { return string(t.dns.name(d)) }

// DNSNameOf returns the name of the record with that number, which asks for a name of that hash, as long as the table
// has it: what a detector remembers of a query is enough to name it later. It is empty afterwards.
func (t *Table) DNSNameOf(record, hash uint64) string {
	if record < t.dns.tail || record >= t.dns.head {
		return ""
	}
	if d := t.dns.at(record); d.NameHash == hash {
		return t.DNSName(d)
	}
	return ""
}

// DNSType is the name of a record type (IANA dns-parameters), "TYPE65280" if it has none here.
func DNSType(t uint16) string { return code(dnsTypes, t, "TYPE") }

// AppendDNSName appends the name to b.
func (t *Table) AppendDNSName(b []byte, d *DNS) []byte { return append(b, t.dns.name(d)...) }
