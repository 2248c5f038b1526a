package flow

import "jindan/capture"

// idKeepers are the hosts that ask again under the id of the first query, at the same server or at the next one, as the
// resolvers of C libraries do (glibc, musl: a lookup sends the same bytes to all). Of such a host a query for the same name under
// another id and from another port is another caller's, not the next try of one. The zero value knows none.
type idKeepers struct {
	hosts  map[capture.Addr]*idKeeper
	newest []asking // a slot by hash: the newest query of it
}

// idKeeper is a host that has asked a second server under the id of an unanswered query, run times in a row.
type idKeeper struct {
	server capture.Endpoint
	run    int
}

// asking is a query, by what all tries of a keeper share.
type asking struct {
	client capture.Addr
	name   uint64
	qtype  uint16
	id     uint16
	server capture.Endpoint
	record uint64
}

const (
	// maxKeepers bounds the hosts, newestAsked the queries among which a first try is looked for.
	maxKeepers  = 1 << 12
	newestAsked = 1 << 12
	// sureRun: of a busy host that draws a new id each time one query in a hundred and more meets an older one's id.
	sureRun = 3
)

// keepsID takes d, record n, before it is entered; it reports whether its host keeps ids.
func (t *dnsTable) keepsID(n uint64, d *DNS) bool {
	k := &t.keepers
	if k.newest == nil {
		k.newest = make([]asking, newestAsked)
	}
	x := asking{d.Client.Addr, d.NameHash, d.QType, d.ID, d.Server, n}
	h := (&capture.Endpoint{Addr: x.client, Port: x.id}).Hash() ^ x.name ^ uint64(x.qtype)<<32
	slot := &k.newest[h*0x9e3779b97f4a7c15>>(64-12)]
	y := *slot
	*slot = x
	host := k.hosts[x.client]
	if y.client == x.client && y.name == x.name && y.qtype == x.qtype && y.id == x.id && y.server != x.server && y.record >= t.tail {
		if e := t.at(y.record); !e.Answered && d.First.Sub(e.Last) >= dnsRetryMin && d.First.Sub(e.Last) <= dnsRetryMax {
			if host = k.host(x.client); host == nil {
				return false
			}
			if host.server != x.server && host.run < sureRun {
				*host = idKeeper{server: x.server}
			}
			host.run++
			return host.run >= sureRun
		}
	}
	if host == nil {
		return false
	}
	if host.server == x.server && host.run < sureRun {
		host.run = 0
	}
	return host.run >= sureRun
}

// host returns what is known of a host, nil if there are too many.
func (k *idKeepers) host(a capture.Addr) *idKeeper {
	h := k.hosts[a]
	if h == nil && len(k.hosts) < maxKeepers {
		if k.hosts == nil {
			k.hosts = make(map[capture.Addr]*idKeeper)
		}
		h = new(idKeeper)
		k.hosts[a] = h
	}
	return h
}

// keeps notes that a host asks again from the same socket under the same id.
func (k *idKeepers) keeps(a capture.Addr) {
	if h := k.host(a); h != nil {
		h.run = sureRun
	}
}
