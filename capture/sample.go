package capture

import "time"

// Sample is an observation of the host itself; one of its fields is set.
type Sample struct {
	Sockets   *SocketTable   `json:"sockets,omitempty"`
	Host      *HostSample    `json:"host,omitempty"`
	Processes *ProcessSample `json:"processes,omitempty"`
	Change    *Change        `json:"change,omitempty"`
}

// SocketState is a TCP state as the kernel numbers it (include/net/tcp_states.h).
type SocketState uint8

// The states.
const (
	Established SocketState = iota + 1
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv
	BoundInactive
)

var stateNames = [...]string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
	"CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE"}

// String is the state's name in the kernel's own spelling.
func (s SocketState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// Mask is the state as a bit of a state mask (inet_diag_req_v2.idiag_states).
func (s SocketState) Mask() uint32 { return 1 << s }

// AllStates is the mask of every TCP state.
const AllStates uint32 = 0xffff &^ 1

// Socket is one TCP socket of a dump: flat, without pointers. Recordings leave out what is zero: of a socket in TIME_WAIT that is most.
type Socket struct {
	Local, Remote Endpoint    `json:",omitzero"` // IPv4-mapped addresses are IPv4
	Cookie        uint64      `json:",omitzero"` // the socket's identity for life; 4-tuples are re-used (sock_gen_cookie)
	Cgroup        uint64      `json:",omitzero"` // cgroup v2 id; 0: not offered
	RecvQ         uint32      `json:",omitzero"` // bytes unread; LISTEN: connections waiting to be accepted
	SendQ         uint32      `json:",omitzero"` // bytes not acknowledged; LISTEN: the backlog
	Inode         uint32      `json:",omitzero"` // 0: not accepted yet, or without a file (orphan, TIME_WAIT)
	UID           uint32      `json:",omitzero"`
	Interface     uint32      `json:",omitzero"` // bound to
	State         SocketState `json:",omitzero"`
	Timer         uint8       `json:",omitzero"` // 0 none, 1 retransmission, 2 keep-alive, 3 TIME_WAIT, 4 zero window probe
	Retries       uint8       `json:",omitzero"` // of the running timer
	HasInfo       bool        `json:",omitzero"` // Info is valid
	TimerLeft     uint32      `json:",omitzero"` // ms
	Drops         uint32      `json:",omitzero"` // skmem: packets dropped for want of buffer
	Info          TCPInfo     `json:",omitzero"`
}

// TCPInfo is what jindan reads of the kernel's tcp_info (include/uapi/linux/tcp.h). Fields that an
// older kernel does not return are 0. Times in µs unless named.
type TCPInfo struct {
	RTT, RTTVar, MinRTT    uint32 `json:",omitzero"`
	RTO, ATO               uint32 `json:",omitzero"`
	SndMSS, RcvMSS, AdvMSS uint32 `json:",omitzero"`
	PMTU                   uint32 `json:",omitzero"`
	SndCwnd, SndSsthresh   uint32 `json:",omitzero"`
	Unacked, Lost, Retrans uint32 `json:",omitzero"` // segments, now
	TotalRetrans           uint32 `json:",omitzero"` // segments, ever
	Reordering, Reord      uint32 `json:",omitzero"`
	LastDataSent           uint32 `json:",omitzero"` // ms ago
	LastDataRecv           uint32 `json:",omitzero"` // ms ago
	LastAckRecv            uint32 `json:",omitzero"` // ms ago
	BytesAcked             uint64 `json:",omitzero"`
	BytesReceived          uint64 `json:",omitzero"`
	BytesSent              uint64 `json:",omitzero"`
	BytesRetrans           uint64 `json:",omitzero"`
	SegsOut, SegsIn        uint32 `json:",omitzero"`
	DataSegsOut            uint32 `json:",omitzero"`
	DataSegsIn             uint32 `json:",omitzero"`
	NotsentBytes           uint32 `json:",omitzero"`
	DSACKDups              uint32 `json:",omitzero"`
	OutOfOrder             uint32 `json:",omitzero"` // rcv_ooopack
	SndWnd, RcvWnd         uint32 `json:",omitzero"`
	RwndLimited            uint64 `json:",omitzero"`
	SndbufLimited          uint64 `json:",omitzero"`
	TotalRTO               uint16 `json:",omitzero"`
	State, CAState         uint8  `json:",omitzero"`
	Retransmits, Backoff   uint8  `json:",omitzero"`
	SndWscale, RcvWscale   uint8  `json:",omitzero"`
	Options                uint8  `json:",omitzero"`
}

// SocketTable is one dump of a network namespace's TCP sockets.
type SocketTable struct {
	Netns       string // empty: the agent's own
	States      uint32 // which states were asked for
	Info        bool   // tcp_info was asked for
	Interrupted bool   // the table changed during the dump: some sockets may be missing or twice
	Sockets     []Socket
}

// Counter is a counter of the host's network stack, cumulative since the namespace began.
type Counter uint8

// The counters, named as the kernel names them (/proc/net/snmp, netstat, softnet_stat).
const (
	ActiveOpens Counter = iota
	PassiveOpens
	AttemptFails
	EstabResets
	InSegs
	OutSegs
	RetransSegs
	InErrs
	OutRsts
	InCsumErrors
	ListenOverflows
	ListenDrops
	TCPSynRetrans
	TCPTimeouts
	TCPLostRetransmit
	TCPOrigDataSent
	TCPReqQFullDoCookies
	TCPReqQFullDrop
	SyncookiesSent
	TCPAbortOnData
	TCPAbortOnClose
	TCPAbortOnTimeout
	TCPAbortOnMemory
	TCPOFOQueue
	TCPRcvQDrop
	TCPBacklogDrop
	TCPZeroWindowDrop
	TCPToZeroWindowAdv
	TCPMemoryPressures
	UDPInDatagrams
	UDPNoPorts
	UDPInErrors
	UDPRcvbufErrors
	UDPSndbufErrors
	IPInDiscards
	IPOutNoRoutes
	IPReasmFails
	IPFragFails
	IcmpInDestUnreachs
	IcmpOutDestUnreachs
	SoftnetProcessed
	SoftnetDropped
	SoftnetSqueezed
	ConntrackInsertFailed
	ConntrackDrop
	ConntrackEarlyDrop
	CounterCount
)

var counterNames = [CounterCount]string{"ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets", "InSegs", "OutSegs",
	"RetransSegs", "InErrs", "OutRsts", "InCsumErrors", "ListenOverflows", "ListenDrops", "TCPSynRetrans", "TCPTimeouts",
	"TCPLostRetransmit", "TCPOrigDataSent", "TCPReqQFullDoCookies", "TCPReqQFullDrop", "SyncookiesSent", "TCPAbortOnData",
	"TCPAbortOnClose", "TCPAbortOnTimeout", "TCPAbortOnMemory", "TCPOFOQueue", "TCPRcvQDrop", "TCPBacklogDrop",
	"TCPZeroWindowDrop", "TCPToZeroWindowAdv", "TCPMemoryPressures", "UdpInDatagrams", "UdpNoPorts", "UdpInErrors",
	"UdpRcvbufErrors", "UdpSndbufErrors", "IPInDiscards", "IPOutNoRoutes", "IPReasmFails", "IPFragFails",
	"IcmpInDestUnreachs", "IcmpOutDestUnreachs", "SoftnetProcessed", "SoftnetDropped", "SoftnetSqueezed",
	"ConntrackInsertFailed", "ConntrackDrop", "ConntrackEarlyDrop"}

// String is the kernel's name of the counter.
func (c Counter) String() string {
	if c < CounterCount {
		return counterNames[c]
	}
	return "unknown"
}

// HostSample is one look at the counters and limits of a network namespace.
type HostSample struct {
	Netns    string // empty: the agent's own
	Counters [CounterCount]uint64
	Has      uint64 // bit c: the kernel offers Counter c and it could be read

	ConntrackCount, ConntrackMax uint64    // 0: no connection tracking
	FilesOpen, FilesMax          uint64    // of the whole host; 0: unknown
	PortRange                    [2]uint16 // ip_local_port_range; 0: unknown
	SocketsTimeWait              uint64    // from sockstat
	SocketsOrphan                uint64
	TCPMemPages                  uint64
	TCPMemLimit                  [3]uint64 // low, pressure, high in pages

	Links []Link
	Addrs []Addr // of the interfaces
}

// Known reports whether counter c is in the sample.
func (h *HostSample) Known(c Counter) bool { return h.Has&(1<<c) != 0 }

// Set stores a counter.
func (h *HostSample) Set(c Counter, v uint64) { h.Counters[c], h.Has = v, h.Has|1<<c }

// Link is a network interface with its counters (rtnl_link_stats64), cumulative.
type Link struct {
	Name      string
	Index     int
	MTU       int
	Up        bool // administratively up and with a carrier
	Loopback  bool
	Virtual   bool // no hardware behind it: veth, bridge, tunnel
	RxPackets uint64
	RxBytes   uint64
	RxErrors  uint64
	RxDropped uint64
	RxMissed  uint64 // the ring was full
	RxCRC     uint64
	RxFIFO    uint64
	RxFrame   uint64
	TxPackets uint64
	TxBytes   uint64
	TxErrors  uint64
	TxDropped uint64
	TxCarrier uint64
}

// ChangeKind says what changed on the host.
type ChangeKind string

// The kinds of change.
const (
	ChangeProcessStart ChangeKind = "process-start" // of a process that owns a listener
	ChangeSoftware     ChangeKind = "software"      // an executable or package newer than the last boot
	ChangeLink         ChangeKind = "link"          // an interface went down or came up
	ChangeRoute        ChangeKind = "route"
	ChangeNeighbour    ChangeKind = "neighbour" // a next hop became unreachable, or moved
	ChangeClock        ChangeKind = "clock"     // the wall clock was stepped
	ChangeFilter       ChangeKind = "filter"    // jindan's own: which packets it captures from now on
	// ChangeCapture, jindan's own: from now on no packets of the source What can be seen, and Detail says why; an empty Detail
	// says that they can be seen again. Only its source knows: a quiet network has no packets either.
	ChangeCapture ChangeKind = "capture"
)

// Change is a marker: something on the host that changed at a known time.
type Change struct {
	Kind   ChangeKind
	When   Instant       // when it happened, where that is known; 0: when it was observed
	What   string        // the process, interface, route or file
	Detail string        // in the words of the kernel or the tool
	Step   time.Duration // ChangeClock
}

// Process is a process in whose sockets a finding is interested.
type Process struct {
	PID       int32
	Name      string // comm
	Unit      string // systemd unit; empty: none
	Container string // container id; empty: none
	Started   Instant
	Threads   int32
	CPU       float64 // cores, since the sample before; -1: not yet known
	FDs       int32
	FDLimit   int32
	Inodes    []uint32     // of its sockets, those that were asked for
	Waits     []ThreadWait // what its threads wait for, most frequent first
}

// ThreadWait is how many threads of a process wait in the same way.
type ThreadWait struct {
	Threads int32
	State   string // R, S, D… (proc(5))
	Wchan   string // kernel function; empty: not readable
	Syscall string // name; empty: not readable
	// Local and Remote are those of the socket behind the call's descriptor; zero without one.
	Local, Remote Endpoint
	Proto         uint8 // ProtoTCP or ProtoUDP; 0 without a socket
	Listening     bool
}

// ProcessSample answers a request for the owners of sockets.
type ProcessSample struct {
	Netns     string
	Processes []Process
	Unknown   []uint32 // inodes without an owner that could be seen
}
