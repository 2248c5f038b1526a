package analyze

import "jindan/capture"

// Stages says where the time of a service's requests goes, before an onset and since. Times are seconds for each request, from its
// first byte to the last byte of its answer.
type Stages struct {
	Host  string          `json:"host"`
	Port  uint16          `json:"port"`
	Since capture.Instant `json:"since,omitempty"` // the onset; 0: there is none, and all that was seen is before
	// Requests are those that began, or as many as waited at a time if these are more; where they are 0, nothing is known of that time.
	Requests Counts  `json:"requests"`
	Time     Times   `json:"time"`
	Stages   []Stage `json:"stages"`
	// Shared: calls that began while several services of the host had requests in work, and nothing told for which; they
	// are in none of the stages but own work.
	Shared int `json:"shared,omitempty"`
}

// Counts are a number before the onset and since.
type Counts struct {
	Before int `json:"before"`
	After  int `json:"after"`
}

// Times are seconds before the onset and since.
type Times struct {
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// Stage is one place in which requests spend time.
type Stage struct {
	// Stage is arriving, accept, dns, connect, first-byte, transfer, own, sending or not-reading.
	Stage string `json:"stage"`
	Peer  string `json:"peer,omitempty"` // who is called; empty with a call's stage: all others together
	Port  uint16 `json:"port,omitempty"`
	Time  Times  `json:"time"`
	// Reached is how often the stage was entered.
	Reached Counts `json:"reached"`
	// Share is the part of the time that requests take more since the onset; of all their time where nothing is known of one
	// of the two.
	Share float64 `json:"share"`
}

// The stages.
const (
	StageArriving   = "arriving"    // the request itself
	StageAccept     = "accept"      // until the program takes it up: in the accept queue or in its own
	StageDNS        = "dns"         // own name resolution
	StageConnect    = "connect"     // own calls: handshake
	StageFirstByte  = "first-byte"  // own calls: until the answer begins
	StageTransfer   = "transfer"    // own calls: from the first byte of the answer to the last
	StageOwn        = "own"         // what none of the others accounts for
	StageSending    = "sending"     // the answer, from its first byte to its last
	StageNotReading = "not-reading" // of that, with the client's window closed
)

// Top is the stage with the greatest share but that of the queue, and its part of what is not the queue's: requests wait to be taken up
// because those before them are in a stage that takes longer. It is nil if no stage takes longer.
func (s *Stages) Top() (top *Stage, part float64) {
	rest := 0.0
	if s == nil {
		return nil, 0
	}
	for i := range s.Stages {
		x := &s.Stages[i]
		if x.Stage == StageAccept || x.Share <= 0 {
			continue
		}
		if rest += x.Share; top == nil || x.Share > top.Share {
			top = x
		}
	}
	if top == nil {
		return nil, 0
	}
	return top, top.Share / rest
}

// Queue is the share of the queue.
func (s *Stages) Queue() float64 {
	for i := range s.Stages {
		if s.Stages[i].Stage == StageAccept {
			return s.Stages[i].Share
		}
	}
	return 0
}
