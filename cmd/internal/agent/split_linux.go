package agent

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"jindan/cmd/internal/config"
	"jindan/cmd/internal/privsep"
)

// split begins the process anew as a worker without capabilities, beside a keeper that has them, unless it is the worker. Entering
// other network namespaces takes a capability that amounts to root and cannot be lent: with them the process stays one, as where there is
// nothing to give up, or where no keeper can be started, which the error says.
func split(cfg *config.Config, record string) (*privsep.Keeper, error) {
	if len(cfg.Netns) > 0 {
		return nil, nil
	}
	o := privsep.Options{Procfs: cfg.Host.Procfs}
	o.User, o.Keeps = workerOf(owned(cfg, record), readable(cfg))
	return privsep.Split(o)
}

// workerOf is whom a worker of root becomes: the user whose directories all those are that it writes to, if that user may read what it has
// to. Otherwise it stays root without capabilities; but for one, if it could not write without.
func workerOf(writes, reads []string) (*privsep.User, []uint) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	owner := -1
	for _, d := range writes {
		var st unix.Stat_t
		for unix.Stat(d, &st) != nil && d != "/" {
			d = filepath.Dir(d) // it will be made in this one
		}
		if owner >= 0 && int(st.Uid) != owner {
			return nil, []uint{unix.CAP_DAC_OVERRIDE}
		}
		owner = int(st.Uid)
	}
	if owner <= 0 {
		return nil, nil
	}
	if u := userOf(owner); u != nil && mayRead(u, reads) {
		return u, nil
	}
	return nil, []uint{unix.CAP_DAC_OVERRIDE}
}

func userOf(uid int) *privsep.User {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return nil
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil
	}
	w := &privsep.User{UID: uid, GID: gid}
	for _, g := range groups {
		if n, err := strconv.Atoi(g); err == nil {
			w.Groups = append(w.Groups, n)
		}
	}
	return w
}

// mayRead tries to open files as another user, on a thread that ends with it.
func mayRead(u *privsep.User, files []string) bool {
	able := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked
		able <- privsep.Pose(u) == nil && !slices.ContainsFunc(files, func(f string) bool {
			fd, err := unix.Open(f, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			unix.Close(fd)
			return err != nil && err != unix.ENOENT //nolint:errorlint // system calls return bare numbers
		})
	}()
	return <-able
}

// writes are the directories that an agent of cfg writes to.
func writes(cfg *config.Config, record string) []string {
	var dirs []string
	if record != "" {
		dirs = append(dirs, record)
	}
	if cfg.Recorder.Enabled {
		dirs = append(dirs, cfg.Recorder.Dir)
	}
	for _, s := range cfg.Sinks {
		if s.Type != "stdout" && !slices.Contains(dirs, cfg.Spool.Dir) {
			dirs = append(dirs, cfg.Spool.Dir)
		}
		if f, ok := s.Target.(*config.File); ok {
			dirs = append(dirs, filepath.Dir(f.Path))
		}
	}
	if filepath.IsAbs(cfg.HTTP.Listen) {
		dirs = append(dirs, filepath.Dir(cfg.HTTP.Listen))
	}
	return dirs
}

// owned are those directories, and files in them that an agent writes again.
func owned(cfg *config.Config, record string) []string {
	paths := writes(cfg, record)
	for _, s := range cfg.Sinks {
		if f, ok := s.Target.(*config.File); ok {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// readable are the files that an agent of cfg reads beside those that everybody may.
func readable(cfg *config.Config) []string {
	files := slices.Clone(cfg.Read.Files)
	for _, p := range cfg.Paths() {
		if p != cfg.Recorder.Dir && p != cfg.Spool.Dir {
			files = append(files, p)
		}
	}
	return files
}

// anyone reads these: names and certificates, which receivers are reached by, and the kernel's own files.
var anyone = []string{"/proc", "/sys", "/etc", "/usr/share", "/usr/local/share", "/usr/lib/ssl", "/var/lib/ca-certificates", "/run/systemd/resolve",
	"/run/resolvconf", "/run/NetworkManager", "/run/secrets", "/var/run/secrets"}

// confine bounds the files of a worker to those that cfg lets it read and write.
func confine(cfg *config.Config, record string) (bool, error) {
	read := append(slices.Clone(anyone), cfg.Host.Procfs)
	for _, f := range readable(cfg) {
		read = append(read, f)
		if info, err := os.Stat(f); err == nil && !info.IsDir() {
			read = append(read, filepath.Dir(f)) // a file that is replaced is another one
		}
	}
	return privsep.Confine(read, writes(cfg, record))
}

// within says which directory is not among those that the agent could write to when it began; a reload cannot add to them.
func within(dirs, began []string) error {
	for _, d := range dirs {
		if !slices.Contains(began, d) {
			return fmt.Errorf("%s: the agent writes only where it did when it was started: start it again", d)
		}
	}
	return nil
}
