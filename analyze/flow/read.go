package flow

// What an event says beside its kind and time. Each of these is of some kinds only, and false, or 0, for the others.

// ByReset reports whether the client reset the connection, and did not close it (Abandoned).
func (e *Event) ByReset() bool { return e.Kind == Abandoned && e.flag }

// ToNobody reports whether the client had left before the answer came (Response).
func (e *Event) ToNobody() bool { return e.Kind == Response && e.flag }

// StillAsked reports whether the other side had not sent a byte in answer to the last request (HalfClosed).
func (e *Event) StillAsked() bool { return e.Kind == HalfClosed && e.flag }

// Foreign reports whether the TTL is another one than that of what this side sent before (Reset, Refused).
func (e *Event) Foreign() bool { return (e.Kind == Reset || e.Kind == Refused) && e.flag }

// Ended reports whether its ends closed or reset the connection; else the table forgot it (Closed).
func (e *Event) Ended() bool { return e.Kind == Closed && e.flag }

// HasData reports whether the packet carries data (AfterReset).
func (e *Event) HasData() bool { return e.Kind == AfterReset && e.flag }

// Again reports whether these segments are sent again for the first time, and for loss on the path (Retransmit).
func (e *Event) Again() bool { return e.Kind == Retransmit && e.flag }

// Standing reports whether the sender has not gone on so far (Stalled).
func (e *Event) Standing() bool { return e.Kind == Stalled && e.flag }

// AtOnce reports whether Side went on as soon as the acknowledgement came, as one does that had more to say and was not allowed to (LateAck, RFC 896).
func (e *Event) AtOnce() bool { return e.Kind == LateAck && e.flag }

// OtherID reports whether the question is asked again under another transaction id (DNSRepeat).
func (e *Event) OtherID() bool { return e.Kind == DNSRepeat && e.flag }

// Plainer reports whether the SYN before asked for ECN or carried data, and this one does not (SynRepeat).
func (e *Event) Plainer() bool { return e.Kind == SynRepeat && e.flag }

// Rejected reports whether the asker's host says by ICMP that nobody waits for the answer any more (DNSLate).
func (e *Event) Rejected() bool { return e.Kind == DNSLate && e.flag }

// Window is the window that has room for less than a segment (Squeezed).
func (e *Event) Window() uint32 {
	if e.Kind != Squeezed {
		return 0
	}
	return e.Len
}

// Unread reports whether Side takes the window as it stands in the header, though both SYNs seen here have agreed upon a scale (Squeezed).
func (e *Event) Unread() bool { return e.Kind == Squeezed && e.flag }

// Hops is by how much the TTL is below that of the first packet of Side (Copy).
func (e *Event) Hops() int {
	if e.Kind != Copy {
		return 0
	}
	return int(e.N)
}

// TimeExceeded reports whether the TTL was used up on the way (ICMPError; RFC 792 type 11, RFC 4443 §3.3 type 3; code 0).
func (e *Event) TimeExceeded() bool {
	if e.ipv6() {
		return e.Kind == ICMPError && e.N == 3<<8
	}
	return e.Kind == ICMPError && e.N == 11<<8
}

// TooBig reports whether a packet did not fit the next hop (ICMPError; RFC 1191 type 3 code 4, RFC 4443 §3.2 type 2).
func (e *Event) TooBig() bool { return e.Kind == ICMPError && (e.N == 3<<8|4 || e.N>>8 == 2) }

// Unreachable reports whether connect() fails for it (ICMPError; RFC 1122 §4.2.3.9, RFC 4443 §3.1).
func (e *Event) Unreachable() bool { return e.Kind == ICMPError && unreachable(e.N, e.ipv6()) }

func (e *Event) ipv6() bool {
	if e.Conn != nil {
		return !e.Conn.Client.Addr.Netip().Is4()
	}
	return e.DNS != nil && !e.DNS.Client.Addr.Netip().Is4()
}
