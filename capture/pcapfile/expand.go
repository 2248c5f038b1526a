package pcapfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Expand turns the arguments of a command into the names of the captures to read,
// sorted, so that the order of arguments never matters: a file stands for itself,
// unopened; a directory for the captures in it and below it, recognised by their
// content and not by their names; "-" for standard input. A file that is reached
// twice (also through symbolic links) is listed once, under the name that sorts
// first. In directories, links to directories are not followed, and what is not a
// regular file is passed over.
//
// The error joins what is wrong with each argument: not there, a directory without
// captures, or files in a directory that cannot be read. The names are valid even
// then.
func Expand(args []string) ([]string, error) {
	var names []string
	var errs []error
	for _, arg := range args {
		if arg == "-" {
			names = append(names, arg)
			continue
		}
		file, only := Interface(arg)
		st, err := os.Stat(file)
		switch {
		case err != nil:
			errs = append(errs, err)
		case only != "":
			names = append(names, filepath.Clean(file)+"#"+only)
		case !st.IsDir():
			names = append(names, filepath.Clean(arg))
		default:
			found, failed := walk(arg)
			if len(found) == 0 && len(failed) == 0 {
				failed = append(failed, fmt.Errorf("%s: there is no capture in this directory (%s)", arg, readable))
			}
			names = append(names, found...)
			errs = append(errs, failed...)
		}
	}
	slices.Sort(names)
	seen := map[string]bool{}
	names = slices.DeleteFunc(names, func(name string) bool {
		id := identity(name)
		dup := seen[id]
		seen[id] = true
		return dup
	})
	return names, errors.Join(errs...)
}

// walk returns the captures below dir, and what could not be looked at.
func walk(dir string) (found []string, failed []error) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			failed = append(failed, err)
			return nil // goes on; a directory that cannot be read has no entries
		}
		st, err := os.Stat(path)
		if err != nil || !st.Mode().IsRegular() {
			if err != nil && e.Type()&fs.ModeSymlink == 0 { // a dangling link is no capture
				failed = append(failed, err)
			}
			return nil
		}
		ok, err := isCapture(path)
		if err != nil {
			failed = append(failed, err)
		} else if ok {
			found = append(found, path)
		}
		return nil
	})
	return found, failed
}

// isCapture looks at the first bytes of a file, unpacked if need be.
func isCapture(path string) (bool, error) {
	fd, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer fd.Close()
	raw := &rawReader{r: fd}
	var w window
	defer w.close()
	if w.open(raw) == nil {
		if head, err := w.peek(4); err == nil {
			return recognise(head) != nil, nil
		}
	}
	return false, raw.err
}

// identity returns what two names of the same file have in common.
func identity(name string) string {
	if name == "-" {
		return name
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	return abs
}
