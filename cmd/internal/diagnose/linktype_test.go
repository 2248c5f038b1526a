package diagnose

import (
	"testing"

	"jindan/capture"
	"jindan/capture/pcapfile"
)

// A file of which nothing can be decoded says why: the link type, by number and name.
func TestUnreadableLinkType(t *testing.T) {
	s := pcapfile.Stats{Packets: 3, LinkTypes: []pcapfile.LinkCount{{Type: 189, Packets: 2}, {Type: 999, Packets: 1}}}
	if got := unreadable(&s); got != "" {
		t.Errorf("%q of a file that can be decoded", got)
	}
	s.Unread[capture.LossLinkType] = 3
	if got := unreadable(&s); got != "189 (LINKTYPE_USB_LINUX), 999" {
		t.Errorf("%q", got)
	}
}
