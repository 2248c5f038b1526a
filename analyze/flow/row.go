package flow

import (
	"strconv"
	"time"

	"jindan/capture"
)

// Seconds is a duration that JSON shows in seconds, as Wireshark does; a negative one is
// unknown and shows as null.
type Seconds time.Duration

// Unknown is the Seconds that were not seen.
const Unknown Seconds = -1

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	if s < 0 {
		return []byte("null"), nil
	}
	return s.append(nil), nil
}

func (s Seconds) append(b []byte) []byte {
	return strconv.AppendFloat(b, time.Duration(s).Seconds(), 'f', -1, 64)
}

// String is the number alone; empty if it is unknown.
func (s Seconds) String() string {
	if s < 0 {
		return ""
	}
	return string(s.append(nil))
}

// seconds maps 0, which the tracker uses for "not seen", to Unknown.
func seconds(d time.Duration) Seconds {
	if d <= 0 {
		return Unknown
	}
	return Seconds(d)
}

// Ways in which a connection ends, as Row.Ended names them.
const (
	EndedFIN        = "fin"         // both sides sent a FIN
	EndedRST        = "rst"         // a reset
	EndedHalf       = "half_closed" // one side sent a FIN, the other never did
	EndedUnanswered = "unanswered"  // the SYN got no answer
	EndedOpen       = "open"        // still open when the capture, or its record, ended
)

// Row is what `jindan flows` tells of one TCP connection. Counts ending in _client and
// _server are of what that side sent, or announced; segments are counted as sent on the wire,
// super-packets as what they stand for, copies are left out.
type Row struct {
	Kind       string `json:"kind"` // tcp
	Stream     uint32 `json:"stream"`
	FirstFrame uint64 `json:"first_frame"`
	Client     string `json:"client"`
	ClientPort uint16 `json:"client_port"`
	Server     string `json:"server"`
	ServerPort uint16 `json:"server_port"`
	ClientBy   string `json:"client_by"` // how the two were told apart: syn, syn_ack or port
	Local      string `json:"local"`     // which side is this host: client, server, both, or empty

	Start    capture.Instant `json:"start"`
	End      capture.Instant `json:"end"`
	Duration Seconds         `json:"duration"`
	Ended    string          `json:"ended"`    // fin, rst, half_closed, unanswered or open
	EndedBy  string          `json:"ended_by"` // who sent the first FIN, or the RST: client, server or empty
	Reset    string          `json:"reset"`    // class of the reset: refused, late_answer, abort, idle, overflow, timeout, complete

	PacketsClient uint32 `json:"packets_client"`
	PacketsServer uint32 `json:"packets_server"`
	BytesClient   uint64 `json:"bytes_client"` // payload, without what was sent again
	BytesServer   uint64 `json:"bytes_server"`

	HandshakeRTT  Seconds `json:"handshake_rtt"`
	FirstByte     Seconds `json:"first_byte"` // from the end of the first request to the first byte of its answer
	SynRepeats    uint16  `json:"syn_repeats"`
	SynAckRepeats uint16  `json:"syn_ack_repeats"`
	Requests      uint32  `json:"requests"`
	Answers       uint32  `json:"answers"`

	RetransmitClient  uint32 `json:"retransmit_client"` // all classes
	RetransmitServer  uint32 `json:"retransmit_server"`
	FastClient        uint32 `json:"retransmit_fast_client"`
	FastServer        uint32 `json:"retransmit_fast_server"`
	RTOClient         uint32 `json:"retransmit_rto_client"`
	RTOServer         uint32 `json:"retransmit_rto_server"`
	TailLossClient    uint32 `json:"retransmit_tail_loss_probe_client"`
	TailLossServer    uint32 `json:"retransmit_tail_loss_probe_server"`
	SpuriousClient    uint32 `json:"retransmit_spurious_client"`
	SpuriousServer    uint32 `json:"retransmit_spurious_server"`
	ClosedClient      uint32 `json:"retransmit_closed_window_client"`
	ClosedServer      uint32 `json:"retransmit_closed_window_server"`
	UnacceptedClient  uint32 `json:"retransmit_unaccepted_client"` // the listener had not taken the connection
	UnacceptedServer  uint32 `json:"retransmit_unaccepted_server"`
	ClosingClient     uint32 `json:"retransmit_closing_client"` // FINs without data
	ClosingServer     uint32 `json:"retransmit_closing_server"`
	UnprovenClient    uint32 `json:"retransmit_unproven_client"` // of all: may be copies
	UnprovenServer    uint32 `json:"retransmit_unproven_server"`
	HolesClient       uint32 `json:"holes_client"` // gaps in the sequence
	HolesServer       uint32 `json:"holes_server"`
	FilledClient      uint32 `json:"filled_client"` // segments that filled them: lost before the capture point
	FilledServer      uint32 `json:"filled_server"`
	MissingClient     uint32 `json:"missing_client"` // segments that never came
	MissingServer     uint32 `json:"missing_server"`
	ReorderedClient   uint32 `json:"reordered_client"`
	ReorderedServer   uint32 `json:"reordered_server"`
	CaptureLossClient uint32 `json:"capture_loss_client"` // acknowledged but never seen
	CaptureLossServer uint32 `json:"capture_loss_server"`
	OutOfWindowClient uint32 `json:"out_of_window_client"` // segments and acknowledgements with a number that no window can contain
	OutOfWindowServer uint32 `json:"out_of_window_server"`
	CopiesClient      uint32 `json:"copies_client"`
	CopiesServer      uint32 `json:"copies_server"`
	DSACKClient       uint32 `json:"dsack_client"` // repeats that the other side reports as unneeded
	DSACKServer       uint32 `json:"dsack_server"`
	ZeroWindowsClient uint32 `json:"zero_windows_client"`
	ZeroWindowsServer uint32 `json:"zero_windows_server"`

	// HalfCloseAge is the time from the first FIN to the other side's, or to the RST, or to the end of
	// the capture: how long that other side was in CLOSE_WAIT.
	HalfCloseAge Seconds `json:"half_close_age"`

	// Wireshark are Wireshark's own counts; WiresharkClient is which side of this row it takes for
	// the client in the counts that end in _c and _s.
	Wireshark       WiresharkCounts `json:"wireshark"`
	WiresharkClient string          `json:"wireshark_client"`
}

var (
	sideNames     = [2]string{"client", "server"}
	clientByNames = [3]string{"syn", "syn_ack", "port"}
)

// Row fills r from a connection and what Options.Row gave with it. now is the time of the
// newest packet, local whether an address is this host's. The same r can be
// filled again and again.
func (c *Conn) Row(r *Row, tr *Trouble, w *WiresharkCounts, now capture.Instant, local func(capture.Addr) bool) {
	*r = Row{
		Kind: "tcp", Stream: c.Stream, FirstFrame: c.firstSeen,
		Client: c.Client.Addr.String(), ClientPort: c.Client.Port,
		Server: c.Server.Addr.String(), ServerPort: c.Server.Port, ClientBy: clientByNames[c.ClientBy],
		Start: c.First, End: c.Last, Duration: Seconds(c.Last.Sub(c.First)),
		PacketsClient: c.side[Client].packets, PacketsServer: c.side[Server].packets,
		BytesClient: c.side[Client].bytes, BytesServer: c.side[Server].bytes,
		HandshakeRTT: seconds(c.HandshakeRTT), FirstByte: seconds(c.FirstResponse),
		SynRepeats: c.synTries, SynAckRepeats: c.saTries, Requests: c.requests, Answers: c.answers,
		HalfCloseAge: Unknown, WiresharkClient: sideNames[Client],
	}
	r.Local = c.localSide(local)
	c.ending(r, now)
	if tr != nil {
		a, b := &tr.side[Client], &tr.side[Server]
		r.FastClient, r.FastServer = a.Retransmits[Fast], b.Retransmits[Fast]
		r.RTOClient, r.RTOServer = a.Retransmits[RTO], b.Retransmits[RTO]
		r.TailLossClient, r.TailLossServer = a.Retransmits[TailLoss], b.Retransmits[TailLoss]
		r.SpuriousClient, r.SpuriousServer = a.Retransmits[Spurious], b.Retransmits[Spurious]
		r.ClosedClient, r.ClosedServer = a.Retransmits[ClosedWindow], b.Retransmits[ClosedWindow]
		r.UnacceptedClient, r.UnacceptedServer = a.Retransmits[Unaccepted], b.Retransmits[Unaccepted]
		r.ClosingClient, r.ClosingServer = a.Retransmits[Closing], b.Retransmits[Closing]
		for class := range a.Retransmits {
			r.RetransmitClient += a.Retransmits[class]
			r.RetransmitServer += b.Retransmits[class]
		}
		r.UnprovenClient, r.UnprovenServer = a.Unproven, b.Unproven
		r.HolesClient, r.HolesServer = a.Holes, b.Holes
		r.FilledClient, r.FilledServer = a.Filled, b.Filled
		r.MissingClient, r.MissingServer = a.Missing, b.Missing
		r.ReorderedClient, r.ReorderedServer = a.Reordered, b.Reordered
		r.CaptureLossClient, r.CaptureLossServer = a.CaptureLost, b.CaptureLost
		r.OutOfWindowClient, r.OutOfWindowServer = a.OutOfWindow, b.OutOfWindow
		r.CopiesClient, r.CopiesServer = a.Copies, b.Copies
		r.DSACKClient, r.DSACKServer = a.DSACKs, b.DSACKs
		r.ZeroWindowsClient, r.ZeroWindowsServer = a.ZeroWindows, b.ZeroWindows
	}
	if w != nil {
		r.Wireshark, r.WiresharkClient = *w, sideNames[w.Client&1]
	}
}

func (c *Conn) localSide(local func(capture.Addr) bool) string {
	client, server := local(c.Client.Addr), local(c.Server.Addr)
	switch {
	case client && server:
		return "both"
	case client:
		return "client"
	case server:
		return "server"
	}
	return ""
}

// ending says how the connection ended, who ended it, and how long it was half-closed.
func (c *Conn) ending(r *Row, now capture.Instant) {
	fins := [2]bool{c.side[0].flags&finSent != 0, c.side[1].flags&finSent != 0}
	if c.closer != 0 {
		r.EndedBy = sideNames[c.closedBy()]
	}
	until := now
	switch {
	case c.close != ClassNone:
		r.Ended, r.Reset = EndedRST, c.close.String()
		until = c.Last
	case fins[0] && fins[1]:
		r.Ended = EndedFIN
	case fins[0] || fins[1]:
		r.Ended = EndedHalf
	case c.ClientBy == BySYN && c.side[Server].packets == 0:
		r.Ended = EndedUnanswered
	default:
		r.Ended = EndedOpen
	}
	switch a, b := c.side[0].finAt, c.side[1].finAt; {
	case fins[0] && fins[1]:
		r.HalfCloseAge = Seconds(max(a, b).Sub(min(a, b)))
	case fins[0]:
		r.HalfCloseAge = Seconds(max(until.Sub(a), 0))
	case fins[1]:
		r.HalfCloseAge = Seconds(max(until.Sub(b), 0))
	}
}

// DNSRow is what `jindan flows --dns` tells of one DNS transaction, of a repeat within one, or
// of an answer without a query.
type DNSRow struct {
	Kind       string `json:"kind"` // dns
	Frame      uint64 `json:"frame"`
	Client     string `json:"client"`
	ClientPort uint16 `json:"client_port"`
	Server     string `json:"server"`
	ServerPort uint16 `json:"server_port"`
	Proto      string `json:"proto"` // udp or tcp
	Name       string `json:"name"`
	Type       string `json:"type"`
	ID         uint16 `json:"id"`
	Local      string `json:"local"` // as in Row

	Start   capture.Instant `json:"start"`
	State   string          `json:"state"`   // answered, late, unanswered, pending, repeat or orphan
	Tries   uint16          `json:"tries"`   // how often the client has asked, under other ids and ports, too
	Latency Seconds         `json:"latency"` // from the query to its first answer
	Waited  Seconds         `json:"waited"`  // from the first try to the answer

	Answered     bool   `json:"answered"`
	Rcode        string `json:"rcode"`
	Records      uint16 `json:"records"` // in the answer section
	Truncated    bool   `json:"truncated"`
	EDNSSize     uint16 `json:"edns_size"` // offered by the query; 0: no EDNS
	QueryBytes   uint32 `json:"query_bytes"`
	AnswerBytes  uint32 `json:"answer_bytes"`
	AnswerFrame  uint64 `json:"answer_frame"`
	RetransmitOf uint64 `json:"retransmit_of"` // frame of the query that this one repeats, 0: none
	Unreachable  bool   `json:"unreachable"`   // ICMP said that the query could not be delivered
	OverTCPAfter bool   `json:"after_truncated"`
}

// DNSRow fills r from a record that the table has handed out. local is as in Conn.Row.
func (t *Table) DNSRow(r *DNSRow, d *DNS, local func(capture.Addr) bool) {
	*r = DNSRow{
		Kind: "dns", Frame: d.QueryFrame, Client: d.Client.Addr.String(), ClientPort: d.Client.Port,
		Server: d.Server.Addr.String(), ServerPort: d.Server.Port, Proto: "udp", Name: t.DNSName(d),
		Type: code(dnsTypes, d.QType, "TYPE"), ID: d.ID, Start: d.First, State: d.state(), Tries: d.Tries,
		Latency: Unknown, Waited: Unknown, Answered: d.Answered, Truncated: d.Truncated, EDNSSize: d.EDNSSize,
		QueryBytes: d.QueryLen, AnswerBytes: d.AnswerLen, AnswerFrame: d.AnswerFrame, Records: d.Records,
		RetransmitOf: d.RetransmitOf, Unreachable: d.Unreachable, OverTCPAfter: d.AfterTruncated,
	}
	if d.Proto == capture.ProtoTCP {
		r.Proto = "tcp"
	}
	if d.Answered {
		r.Latency, r.Waited = Seconds(max(d.Latency, 0)), Seconds(max(d.Waited(), 0))
	}
	if d.Answered || d.Orphan {
		r.Rcode = code(dnsRcodes, uint16(d.Rcode), "RCODE")
	}
	c := Conn{Client: d.Client, Server: d.Server}
	r.Local = c.localSide(local)
}

func (d *DNS) state() string {
	switch {
	case d.Orphan:
		return "orphan"
	case d.Repeat:
		return "repeat"
	case d.Late:
		return "late"
	case d.Answered:
		return "answered"
	case d.Unanswered:
		return "unanswered"
	}
	return "pending"
}

// Names of the types and response codes that are met (IANA dns-parameters).
var (
	dnsTypes = map[uint16]string{1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA",
		33: "SRV", 35: "NAPTR", 43: "DS", 46: "RRSIG", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 251: "IXFR", 252: "AXFR", 255: "ANY"}
	dnsRcodes = map[uint16]string{0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED",
		6: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE"}
)

// code names a value; one without a name is written as RFC 3597 §5 does.
func code(names map[uint16]string, v uint16, prefix string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return prefix + strconv.Itoa(int(v))
}
