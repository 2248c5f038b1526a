package flow

import (
	"encoding/binary"

	"jindan/capture"
)

// slot of the hash index: tag and index+1; 0 is empty.
type slot struct{ tag, ref uint32 }

// find returns the connection between the packet's endpoints, or nil.
func (t *Table) find(h uint32, p *capture.Packet) (*Conn, Side) {
	mask := uint32(len(t.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s.ref == 0 {
			return nil, 0
		}
		if s.tag != h {
			continue
		}
		c := t.conns.at(s.ref - 1)
		if same(&c.Client, &p.Src) && same(&c.Server, &p.Dst) {
			return c, Client
		}
		if same(&c.Server, &p.Src) && same(&c.Client, &p.Dst) {
			return c, Server
		}
	}
}

// same is a == b without a call.
func same(a, b *capture.Endpoint) bool {
	return a.Port == b.Port && binary.LittleEndian.Uint64(a.Addr[8:]) == binary.LittleEndian.Uint64(b.Addr[8:]) &&
		binary.LittleEndian.Uint64(a.Addr[:8]) == binary.LittleEndian.Uint64(b.Addr[:8])
}

func (t *Table) insert(h, ref uint32) {
	if (t.live+1)*8 > len(t.slots)*5 {
		old := t.slots
		t.slots = make([]slot, len(old)*2)
		for _, s := range old {
			if s.ref != 0 {
				t.place(s)
			}
		}
	}
	t.place(slot{h, ref + 1})
	t.live++
}

func (t *Table) place(s slot) {
	mask := uint32(len(t.slots) - 1)
	i := s.tag & mask
	for t.slots[i].ref != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// remove takes a record out of the index; later entries of the run move up.
func (t *Table) remove(c *Conn) {
	mask := uint32(len(t.slots) - 1)
	i := capture.FlowHash(&c.Client, &c.Server) & mask
	for t.slots[i].ref != c.index+1 {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; t.slots[j].ref != 0; j = (j + 1) & mask {
		home := t.slots[j].tag & mask
		if (j-home)&mask >= (j-i)&mask {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = slot{}
	t.live--
}

// prefetchLen is how many packets Prefetch looks at: their records fit the first-level cache.
const prefetchLen = 32

// Prefetch reads the records of the connections that obs are about, so that the processor fetches
// them at the same time and not one after the other when Observe comes to them. It
// changes nothing, and returns how many observations it looked at.
func (t *Table) Prefetch(obs []capture.Observation) int {
	n := min(len(obs), prefetchLen)
	mask := uint32(len(t.slots) - 1)
	var refs [prefetchLen]uint32
	var sum uint32
	for i := range obs[:n] {
		if h := obs[i].Packet.Hash; h != 0 {
			refs[i] = t.slots[h&mask].ref
			sum += t.copies.entries[copySlot(obs[i].Packet.Ident)].sum
		}
	}
	for i, ref := range refs[:n] {
		if ref == 0 {
			continue
		}
		c := t.conns.at(ref - 1)
		// One field of each cache line that every packet reads.
		sum += uint32(c.Client.Port) + uint32(c.Last) + uint32(c.side[0].nextAt) + c.side[1].next + uint32(c.side[1].turn)
		if c.path != 0 {
			k := &obs[i].Packet
			from := c.dir(Client)
			if c.Client.Port != k.Src.Port {
				from = c.dir(Server)
			}
			p := t.paths.at(c.path - 1)
			sum += p.win + p.Side[from].Segments + p.Side[from].Bin()[Bin(k.IPLen)].Seen
		}
	}
	t.fetched = sum
	return n
}
