package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestOutlet(t *testing.T) {
	var b bytes.Buffer
	o := NewOutlet(&b)
	for range 1000 {
		_, _ = o.Write([]byte("a line\n"))
	}
	if !o.Flush(5*time.Second) || b.String() != strings.Repeat("a line\n", 1000) {
		t.Errorf("%d bytes", b.Len())
	}
	if n, lost, err := o.Pending(); n != 0 || lost != 0 || err != nil {
		t.Error(n, lost, err)
	}
}
