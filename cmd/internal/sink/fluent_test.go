package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"jindan/analyze"
)

// chunk is what a receiver of the forward protocol gets at once.
type chunk struct {
	tag     string
	entries [][2]any // time and record
}

// fluentServer acknowledges the chunks of a connection, and reads them with a decoder that knows MessagePack's own rules.
func fluentServer(t *testing.T, c net.Conn, each func(chunk)) {
	defer c.Close()
	for {
		d := &unpacker{r: c}
		v, ok := d.value().([]any)
		if !ok || d.err != nil {
			return
		}
		got := chunk{tag: v[0].(string)}
		e := &unpacker{r: bytes.NewReader(v[1].([]byte))}
		for {
			x, ok := e.value().([]any)
			if !ok || e.err != nil {
				break
			}
			got.entries = append(got.entries, [2]any{x[0], x[1]})
		}
		o := v[2].(map[string]any)
		each(got)
		if fmt.Sprint(o["size"]) != fmt.Sprint(len(got.entries)) {
			t.Errorf("size %v for %d entries", o["size"], len(got.entries))
		}
		c.Write(packString(packString([]byte{0x81}, "ack"), o["chunk"].(string)))
	}
}

func TestFluent(t *testing.T) {
	l := listen(t)
	defer l.Close()
	chunks := make(chan chunk, 10)
	go func() {
		for round := 0; ; round++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if round == 0 { // killed before it acknowledges
				c.Read(make([]byte, 10))
				c.Close()
				continue
			}
			go fluentServer(t, c, func(c chunk) { chunks <- c })
		}
	}()
	k := must(t)(NewFluent(FluentOptions{Address: l.Addr().String()}))
	s, r := deliver(t, Output{Sink: k, Timeout: 2 * time.Second})
	put(t, s, record(t, 0, analyze.Open, "warn"))
	got := <-chunks
	eventually(t, "it is acknowledged", func() bool { return r.Status().Sent == 1 })
	if got.tag != "jindan.finding" || len(got.entries) != 1 || r.Status().Retried != 1 {
		t.Fatalf("%+v %+v", got, r.Status())
	}
	var want map[string]any
	if err := json.Unmarshal(record(t, 0, analyze.Open, "warn").Body, &want); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got.entries[0][1])
	b, _ := json.Marshal(want)
	if !bytes.Equal(a, b) || fmt.Sprintf("%x", got.entries[0][0]) != "6553f10000000000" {
		t.Errorf("\n%s\n%s\n%x", a, b, got.entries[0][0])
	}
}

// unpacker reads the MessagePack types of the forward protocol.
type unpacker struct {
	r   io.Reader
	err error
}

func (d *unpacker) bytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil && d.err == nil {
		d.err = err
	}
	return b
}

func (d *unpacker) uint(n int) (v uint64) {
	for _, b := range d.bytes(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (d *unpacker) value() any {
	c := d.bytes(1)[0]
	list := func(n int) any {
		l := []any{}
		for range n {
			l = append(l, d.value())
		}
		return l
	}
	dict := func(n int) any {
		m := map[string]any{}
		for range n {
			k, _ := d.value().(string)
			m[k] = d.value()
		}
		return m
	}
	switch {
	case d.err != nil:
		return nil
	case c < 0x80:
		return int64(c)
	case c < 0x90:
		return dict(int(c & 15))
	case c < 0xa0:
		return list(int(c & 15))
	case c < 0xc0:
		return string(d.bytes(int(c & 31)))
	}
	switch c {
	case 0xc2, 0xc3:
		return c == 0xc3
	case 0xc6:
		return d.bytes(int(d.uint(4)))
	case 0xd3:
		return int64(d.uint(8))
	case 0xd7:
		d.bytes(1)
		return d.bytes(8)
	case 0xda:
		return string(d.bytes(int(d.uint(2))))
	case 0xdb:
		return string(d.bytes(int(d.uint(4))))
	case 0xdd:
		return list(int(d.uint(4)))
	case 0xdf:
		return dict(int(d.uint(4)))
	}
	return nil
}
