package report

import (
	"fmt"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/report/svg"
)

// sentLost are segments of one direction.
type sentLost struct {
	sent, lost   uint64
	big, bigLost uint64 // of full size: of 1,280 bytes and more
}

// add adds what a direction had from slot i to before j. SYN and SYN-ACK are left out: they are counted apart everywhere.
func (b *builder) add(n *sentLost, d *view.Direction, i, j int) {
	for slot := max(i, 0); slot < min(j, view.Slots); slot++ {
		for class := 1; class < view.Classes; class++ {
			sent, lost := b.cell(d, slot, class)
			n.sent, n.lost = n.sent+sent, n.lost+lost
			if class >= 3 {
				n.big, n.bigLost = n.big+sent, n.bigLost+lost
			}
		}
	}
}

// cell is how many segments of a size class were sent in a slot and how many of them were lost between the two hosts. What has
// reached this host, where the capture was made, was not lost on the way to it, even if it was sent again.
func (b *builder) cell(d *view.Direction, slot, class int) (sent, lost uint64) {
	sent, lost = uint64(d.Sent[slot][class]), uint64(d.Missing[slot][class])
	if !b.local(d.To) {
		lost += uint64(d.Again[slot][class])
	}
	return sent, min(lost, sent)
}

// slots are those that lie before the onset of a finding, [0, before), and since, [since, …). The one in which the onset lies is neither:
// what passed in it may have passed before. But it belongs to the others where it holds most of what the finding's hosts lost.
func (b *builder) slots(root *analyze.Finding) (before, since int) {
	w := b.v.Width * (view.MaxBuckets / view.Slots)
	if w <= 0 || root.Onset <= b.v.Start {
		return 0, 0
	}
	before = int(min(int64(root.Onset-b.v.Start)/w, view.Slots))
	if b.v.SlotAt(before) == root.Onset {
		return before, before
	}
	var now, later sentLost
	for i := range b.v.Flows {
		if d := &b.v.Flows[i]; onWay(root.Subject, d) {
			b.add(&now, d, before, before+1)
			b.add(&later, d, before+1, view.Slots)
		}
	}
	if now.lost > later.lost {
		return before, before
	}
	return before, before + 1
}

// onWay reports whether a direction is between the hosts of a subject, and in its direction if it has one.
func onWay(s analyze.Subject, d *view.Direction) bool {
	in, out := d.To == s.Host && (s.Peer == "" || d.From == s.Peer), d.From == s.Host && (s.Peer == "" || d.To == s.Peer)
	return s.Host == "" || in && s.Direction != "outbound" || out && s.Direction != "inbound"
}

// since names the time from which on something is counted: the onset, unless what is counted comes in steps that do not begin with it.
func (b *builder) since(from, onset capture.Instant) analyze.Text {
	switch {
	case onset.Sub(from).Abs() <= 100*time.Millisecond:
		return analyze.Text{En: "since the onset", Ko: "시작 이후"}
	case from <= b.v.Start:
		return analyze.Text{En: "from the start of the input on", Ko: "입력의 처음부터"}
	}
	return b.say(func(r *text) string {
		return fmt.Sprintf(r.pick("since %s", "%s 이후"), strings.TrimSuffix(r.short(from), ".000"))
	})
}

func share(part, of uint64) string {
	if of == 0 {
		return "–"
	}
	p := 100 * float64(part) / float64(of)
	switch {
	case part == 0:
		return "0 %"
	case p < 0.095:
		return "< 0.1 %"
	case p < 9.95:
		return fmt.Sprintf("%.1f %%", p)
	case part < of:
		return fmt.Sprintf("%.0f %%", min(p, 99))
	}
	return "100 %"
}

// where draws the hosts in a row, this host in the middle, with what was lost in either direction between them.
func (b *builder) where(suffix string, root *analyze.Finding) section {
	s := section{ID: "path" + suffix, Name: analyze.Text{En: "Where it happens", Ko: "발생 위치"}}
	host, peer := root.Subject.Host, root.Subject.Peer
	if host == "" && b.d.Coverage.Local != "" {
		host = b.d.Coverage.Local
	}
	if host == "" {
		s.Claim = analyze.Text{En: "The cause is about the whole capture, not about one place.", Ko: "원인이 한 장소가 아니라 캡처 전체에 관한 것입니다."}
		s.Without = analyze.Text{En: "No picture: there are no two hosts to draw.", Ko: "그릴 두 호스트가 없어 그림이 없습니다."}
		return s
	}
	var toHost, toPeer, fromRest, toRest sentLost
	rest := map[string]bool{}
	_, onset := b.slots(root)
	since := b.since(b.v.SlotAt(onset), root.Onset)
	for i := range b.v.Flows {
		d := &b.v.Flows[i]
		switch {
		case peer != "" && d.From == peer && d.To == host:
			b.add(&toHost, d, onset, view.Slots)
		case peer != "" && d.From == host && d.To == peer:
			b.add(&toPeer, d, onset, view.Slots)
		case d.To == host:
			b.add(&fromRest, d, onset, view.Slots)
			rest[d.From] = true
		case d.From == host:
			b.add(&toRest, d, onset, view.Slots)
			rest[d.To] = true
		}
	}
	asked, answered := b.dnsBetween(host, peer, root)
	s.Table.Head = []analyze.Text{{En: "direction", Ko: "방향"}, texts("segments %s", "%s 세그먼트", since), {En: "lost", Ko: "유실"},
		{En: "of these 1,280 bytes and more", Ko: "그중 1,280바이트 이상"}, {En: "lost", Ko: "유실"}}
	row := func(from, to string, n sentLost) {
		s.Table.Rows = append(s.Table.Rows, []analyze.Text{same(from + " → " + to), same(count(n.sent)), same(count(n.lost)), same(count(n.big)), same(count(n.bigLost))})
	}

	p := &svg.Picture{ID: s.ID, W: picWidth, H: 212}
	const y, boxH = 34.0, 62.0
	node := func(x, w float64, class string, name, detail analyze.Text) {
		p.Rect("node "+class, x, y, w, boxH)
		p.Text("strong", "middle", svg.Normal, x+w/2, y+27, w-12, name)
		p.Text("muted", "middle", svg.Small, x+w/2, y+46, w-12, detail)
	}
	// span draws the two directions between two nodes; what is lost has crosses on its line and says so in words.
	span := func(x1, x2 float64, right, left sentLost, seenRight, seenLeft bool) {
		for k, n := range []sentLost{right, left} {
			yy, ty, dx, seen := y+18.0, y-6.0, 1.0, seenRight
			from, to := x1+4, x2-4
			if k == 1 {
				yy, ty, dx, from, to, seen = y+44, y+boxH+18, -1, x2-4, x1+4, seenLeft
			}
			class := "clear"
			switch {
			case !seen || n.sent == 0:
				class = "unseen"
			case n.lost > 0:
				class = "lossy"
			}
			p.Line(class, from, yy, to-7*dx, yy)
			p.Arrow(class+"-head", to, yy, dx)
			if class == "lossy" {
				for i := range 3 {
					p.Cross("cross", x1+(x2-x1)*(0.35+0.15*float64(i)), yy, 5)
				}
			}
			what := analyze.Text{En: "no data seen", Ko: "데이터 없음"}
			if class != "unseen" {
				what = texts("%s of %s segments lost", "세그먼트 %[2]s개 중 %[1]s개 유실", count(n.lost), count(n.sent))
			}
			p.Text(class+"-text", "middle", svg.Small, (x1+x2)/2, ty, x2-x1+36, what)
		}
	}
	restName := texts("%d other hosts", "다른 호스트 %d개", len(rest))
	if len(rest) == 1 {
		for r := range rest {
			restName = same(r)
		}
	}
	restDetail := analyze.Text{En: "all other peers", Ko: "나머지 상대 전체"}
	hostName, hostDetail := analyze.Text{En: "This host", Ko: "이 호스트"}, same(host)
	if !b.local(host) {
		hostName, hostDetail = same(host), analyze.Text{En: "not the capturing host", Ko: "캡처한 호스트 아님"}
	}
	switch peer {
	case "":
		if root.Subject.Port != 0 {
			hostDetail = b.place(root.Subject)
		}
		node(60, 220, "", restName, restDetail)
		node(620, 260, "here", hostName, hostDetail)
		span(280, 620, fromRest, toRest, len(rest) > 0, len(rest) > 0)
		row(restName.En, host, fromRest)
		row(host, restName.En, toRest)
		s.Claim = texts("%s of %s segments to this host and %s of %s from it were lost on the way %s.",
			"%[5]s 이 호스트로 오는 세그먼트 %[2]s개 중 %[1]s개, 나가는 %[4]s개 중 %[3]s개가 유실됐습니다.", count(fromRest.lost), count(fromRest.sent), count(toRest.lost), count(toRest.sent), since)
		if fromRest.sent+toRest.sent == 0 {
			s.Claim = texts("No segment with data was seen between this host and others %s.", "%s 이 호스트와 다른 호스트 사이에 데이터 세그먼트가 없었습니다.", since)
		}
	default:
		node(0, 190, "", restName, restDetail)
		node(370, 210, "here", hostName, hostDetail)
		peerDetail := analyze.Text{En: "the other end", Ko: "상대"}
		if root.Subject.Port != 0 {
			peerDetail = texts("port %d", "포트 %d", root.Subject.Port)
		}
		node(800, 200, "", same(peer), peerDetail)
		span(190, 370, fromRest, toRest, len(rest) > 0, len(rest) > 0)
		span(580, 800, toPeer, toHost, true, true)
		p.Poly("bracket", false, 584, y+boxH+30, 584, y+boxH+40, 796, y+boxH+40, 796, y+boxH+30)
		row(peer, host, toHost)
		row(host, peer, toPeer)
		row(restName.En, host, fromRest)
		row(host, restName.En, toRest)
		way, dir := toHost, texts("%s → %s", "%s → %s", peer, host)
		if root.Subject.Direction == "outbound" || root.Subject.Direction == "" && toPeer.lost > toHost.lost {
			way, dir = toPeer, texts("%s → %s", "%s → %s", host, peer)
		}
		if way.sent > 0 {
			note := texts("%s of %s of 1,280 bytes and more lost", "1,280바이트 이상 %[2]s개 중 %[1]s개 유실", count(way.bigLost), count(way.big))
			switch small := way.sent - way.big; small {
			case 0:
				note = texts("%s; no smaller one with data", "%s, 더 작은 데이터 세그먼트는 없음", note)
			default:
				note = texts("%s; of smaller ones %s of %s", "%s, 더 작은 것은 %[3]s개 중 %[2]s개", note, count(way.lost-way.bigLost), count(small))
			}
			p.Text("", "end", svg.Normal, picWidth, y+boxH+62, picWidth, texts("%s: %s", "%s: %s", dir, note))
		}
		called := b.called(root)
		if called.unopened > 0 && way.sent == 0 {
			p.Text("bad-text", "end", svg.Normal, picWidth, y+boxH+62, picWidth, texts("%s → %s: %s connections did not come about, %s requests were sent",
				"%s → %s: 성립하지 않은 연결 %s개, 보낸 요청 %s건", host, endpoint(peer, root.Subject.Port), count(called.unopened), count(called.requests)))
		}
		if asked > 0 {
			p.Text("", "end", svg.Normal, picWidth, y+boxH+82, picWidth, texts("DNS: %s of %s queries answered", "DNS: 질의 %[2]s건 중 %[1]s건 응답", count(answered), count(asked)))
			s.Table.Rows = append(s.Table.Rows, []analyze.Text{{En: "DNS queries answered", Ko: "응답받은 DNS 질의"}, same(count(asked)), same(count(asked - answered)), same("–"), same("–")})
		}
		other := fromRest.sent + toRest.sent
		s.Claim = texts("Between %s and %s %s of %s segments were lost %[7]s; between this host and all others %[5]s of %[6]s.",
			"%s ↔ %s 구간에서 %[7]s 세그먼트 %[4]s개 중 %[3]s개 유실, 이 호스트와 나머지 사이는 %[6]s개 중 %[5]s개 유실.",
			peer, host, count(toHost.lost+toPeer.lost), count(toHost.sent+toPeer.sent), count(fromRest.lost+toRest.lost), count(other), since)
		switch {
		case toHost.sent+toPeer.sent == 0 && called.unopened > 0:
			s.Claim = texts("Of the connections of %s to %s since the onset %s did not come about, and no data passed.",
				"시작 이후 %s → %s 연결 중 %s개가 성립하지 않았고 데이터가 오가지 않았습니다.", host, endpoint(peer, root.Subject.Port), count(called.unopened))
		case toHost.sent+toPeer.sent == 0 && asked > 0:
			s.Claim = texts("Between %s and %s %s of %s DNS queries were answered since the onset.", "%s ↔ %s 구간에서 시작 이후 DNS 질의 %[4]s건 중 %[3]s건 응답.",
				peer, host, count(answered), count(asked))
		case toHost.sent+toPeer.sent == 0:
			s.Claim = texts("No segment with data was seen between %s and %s %s.", "%[3]s %[1]s ↔ %[2]s 구간에 데이터 세그먼트가 없었습니다.", peer, host, since)
		}
		if root.Rule == "size-dependent-loss" && answered < asked {
			s.Notes = append(s.Notes, analyze.Text{
				En: "The heading adds the large DNS answers that never came to the lost segments, from the onset on. The picture counts segments and queries apart.",
				Ko: "제목은 시작 시각부터 유실된 세그먼트에 도착하지 않은 큰 DNS 응답을 더한 수입니다. 그림은 세그먼트와 질의를 나누어 셉니다."})
		}
		if toHost.lost+toPeer.lost > 0 {
			s.Notes = append(s.Notes, texts(
				"From here the span between %[1]s and %[2]s cannot be cut any shorter: no device in it was observed, only what shares all of it. "+
					"A capture at %[1]s at the same time would (`jindan analyze --point` with both files).",
				"여기서는 %[1]s ↔ %[2]s 구간을 더 좁힐 수 없습니다. 그 사이의 장비는 관측되지 않았습니다. 같은 시각에 %[1]s에서 캡처하면 좁힐 수 있습니다.", peer, host))
			switch big, bigLost := fromRest.big+toRest.big, fromRest.bigLost+toRest.bigLost; big {
			case 0:
				s.Notes = append(s.Notes, analyze.Text{
					En: "The other side is not cleared for large segments: none of 1,280 bytes and more went to or came from the others.",
					Ko: "다른 쪽은 큰 세그먼트에 대해 확인되지 않았습니다. 나머지와 1,280바이트 이상을 주고받은 적이 없습니다."})
			default:
				s.Notes = append(s.Notes, texts("What clears the other side: %s segments of 1,280 bytes and more to and from the others, %s of them lost.",
					"다른 쪽의 근거: 나머지와 주고받은 1,280바이트 이상 세그먼트 %s개 중 유실 %s개.", count(big), count(bigLost)))
			}
		}
	}
	s.Picture = p
	s.Notes = append(s.Notes, b.inSteps(onset))
	s.Legend = []legend{{"clear", "→", analyze.Text{En: "clear: the number is how many could have been lost", Ko: "이상 없음. 숫자는 유실될 수 있었던 개수"}},
		{"lossy", "✕", analyze.Text{En: "lost somewhere in this span", Ko: "이 구간 어딘가에서 유실"}}, {"unseen", "⇢", analyze.Text{En: "no data seen", Ko: "데이터 없음"}}}
	return s
}

// inSteps says in which steps segments are counted.
func (b *builder) inSteps(from int) analyze.Text {
	return b.say(func(r *text) string {
		return fmt.Sprintf(r.pick("Segments are counted in steps of %s, here from %s on.", "세그먼트는 %s 단위로 세며, 여기서는 %s부터입니다."),
			r.span(b.v.SlotAt(1).Sub(b.v.SlotAt(0))), strings.TrimSuffix(r.short(b.v.SlotAt(from)), ".000"))
	})
}

// calls are what a service was asked since an onset, and before.
type calls struct{ requests, unopened, requestsBefore, unopenedBefore uint64 }

// called is what the upstream of a finding was asked; zero, if it is about none.
func (b *builder) called(root *analyze.Finding) (n calls) {
	if root.Subject.Kind != analyze.SubjectUpstream {
		return n
	}
	from := b.v.Bucket(root.Onset)
	for i := range b.v.Services {
		if s := &b.v.Services[i]; s.Addr == root.Subject.Peer && s.Port == root.Subject.Port {
			// Requests of the bucket in which the onset lies may have come before it.
			n = calls{s.Requests.Sum(from+1, view.MaxBuckets), s.Unopened.Sum(from, view.MaxBuckets), s.Requests.Sum(0, from), s.Unopened.Sum(0, from)}
		}
	}
	return n
}

// dnsBetween is how many queries of a host to a server there were since the onset, and how many were answered.
func (b *builder) dnsBetween(host, peer string, root *analyze.Finding) (asked, answered uint64) {
	from := b.v.Bucket(root.Onset)
	for i := range b.v.Resolvers {
		if r := &b.v.Resolvers[i]; r.Client == host && r.Server == peer {
			answered += r.Answered.Sum(from, view.MaxBuckets)
			asked += r.Answered.Sum(from, view.MaxBuckets) + r.Unanswered.Sum(from, view.MaxBuckets)
		}
	}
	return asked, answered
}
