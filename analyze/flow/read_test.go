package flow

import "testing"

// What an event says of some kinds it does not say of others: the same field means something else there.
func TestReadsAreOfTheirKind(t *testing.T) {
	for _, tc := range []struct {
		name string
		read func(*Event) bool
		of   Mask
	}{
		{"ByReset", (*Event).ByReset, Of(Abandoned)},
		{"ToNobody", (*Event).ToNobody, Of(Response)},
		{"StillAsked", (*Event).StillAsked, Of(HalfClosed)},
		{"Foreign", (*Event).Foreign, Of(Reset, Refused)},
		{"Ended", (*Event).Ended, Of(Closed)},
		{"HasData", (*Event).HasData, Of(AfterReset)},
		{"Again", (*Event).Again, Of(Retransmit)},
		{"Standing", (*Event).Standing, Of(Stalled)},
		{"AtOnce", (*Event).AtOnce, Of(LateAck)},
		{"OtherID", (*Event).OtherID, Of(DNSRepeat)},
		{"Rejected", (*Event).Rejected, Of(DNSLate)},
		{"Window", func(e *Event) bool { return e.Window() > 0 }, Of(Squeezed)},
		{"Unread", (*Event).Unread, Of(Squeezed)},
		{"Hops", func(e *Event) bool { return e.Hops() > 0 }, Of(Copy)},
		{"TimeExceeded", (*Event).TimeExceeded, Of(ICMPError)},
	} {
		for k := range kinds {
			c := &Conn{}
			c.Client.Addr = v4([]byte{192, 0, 2, 1})
			e := Event{Kind: k, Conn: c, N: 11 << 8, Len: 100, flag: true}
			if got := tc.read(&e); got != tc.of.Has(k) {
				t.Errorf("%s of kind %d: %v", tc.name, k, got)
			}
			if e.flag = false; tc.read(&e) && k != Squeezed && k != Copy && k != ICMPError {
				t.Errorf("%s of kind %d without the flag", tc.name, k)
			}
		}
	}
}

func TestICMPErrors(t *testing.T) {
	for _, tc := range []struct {
		v6                         bool
		n                          uint32
		exceeded, big, unreachable bool
	}{
		{false, 3<<8 | 1, false, false, true},
		{false, 3<<8 | 4, false, true, false},
		{false, 11 << 8, true, false, false},
		{true, 1 << 8, false, false, true},
		{true, 2 << 8, false, true, false},
		{true, 3 << 8, true, false, false},
	} {
		addr := v4([]byte{192, 0, 2, 1})
		if tc.v6 {
			addr[0] = 0x20
		}
		c := &Conn{}
		c.Client.Addr = addr
		d := &DNS{}
		d.Client.Addr = addr
		for _, e := range []Event{{Kind: ICMPError, N: tc.n, Conn: c}, {Kind: ICMPError, N: tc.n, DNS: d}} {
			if e.TimeExceeded() != tc.exceeded || e.TooBig() != tc.big || e.Unreachable() != tc.unreachable {
				t.Errorf("IPv6 %v, %d/%d: exceeded %v, too big %v, unreachable %v", tc.v6, tc.n>>8, tc.n&255, e.TimeExceeded(), e.TooBig(), e.Unreachable())
			}
		}
	}
}
