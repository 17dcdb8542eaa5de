//go:build realclients

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// unpacked is the folder of the cache into which .ci/run has unpacked a
// package: Debian lets one mail server be installed at a time.
func unpacked(t *testing.T, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(cache, "tlsrelay-ci", name)
	if _, err := os.Stat(root); err != nil {
		t.Fatalf("%v; .ci/run unpacks it", err)
	}
	return root
}

// asInstalled is a command in a world in which an unpacked package is
// installed, for programs find the rest of their package at fixed paths. The
// world has its own mounts: the package's files lie over those of the machine,
// and world's etc over both; world's var and run are all there is in /var and
// /run. And it has its own processes: all of them end when the command is
// killed. Names are looked up in world's files alone, for the name server
// refuses every question at once. Without the name of a package it is all the
// same for a program that is installed.
func asInstalled(t *testing.T, name, world, program string, args ...string) *exec.Cmd {
	t.Helper()
	for _, folder := range []string{"etc", "var", "run"} {
		if err := os.MkdirAll(filepath.Join(world, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writePublic(t, filepath.Join(world, "etc", "resolv.conf"), noNames)
	if hosts := filepath.Join(world, "etc", "hosts"); !exists(hosts) {
		writePublic(t, hosts, "127.0.0.1 localhost\n127.0.1.1 world.test world\n")
	}
	var root string
	if name != "" {
		root = unpacked(t, name)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", asInstalledScript, "sh", root, world, program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS}
	cmd.Dir = "/"
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// noNames says in the second line, to OpenSMTPD, that files come first.
const noNames = `nameserver 127.255.255.254
lookup file bind
options attempts:1 timeout:1
`

const asInstalledScript = `set -e
package=$1 world=$2
shift 2
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount --make-rprivate /
mount -t proc proc /proc
echo world.test >/proc/sys/kernel/hostname
[ -z "$package" ] || mount -t overlay overlay -o "lowerdir=$package/usr:/usr" /usr
etc=$world/etc
[ -z "$package" ] || [ ! -d "$package/etc" ] || etc=$etc:$package/etc
mount -t overlay overlay -o "lowerdir=$etc:/etc" /etc
if [ -e "$world/dev/log" ]; then
  # The first makes the name. A socket cannot be reached through an overlay.
  mount -t overlay overlay -o "lowerdir=$world/dev:/dev" /dev
  mount --bind "$world/dev/log" /dev/log
fi
mount --bind "$world/var" /var
mount --bind "$world/run" /run
exec "$@"
`

// addUsers makes users, each with a group of its own, in a world alone. They
// have the numbers from firstUser on.
func addUsers(t *testing.T, world string, names ...string) {
	t.Helper()
	etc := filepath.Join(world, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, line := range map[string]string{
		"passwd": "%[1]s:x:%[2]d:%[2]d::/nonexistent:/usr/sbin/nologin\n",
		"group":  "%[1]s:x:%[2]d:\n",
	} {
		text, err := os.ReadFile(filepath.Join("/etc", file))
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			text = fmt.Appendf(text, line, name, firstUser+i)
		}
		writePublic(t, filepath.Join(etc, file), string(text))
	}
}

const firstUser = 61001 // a number that Debian gives nobody

// syslog gives a world a system log, which a test that fails shows.
func syslog(t *testing.T, world string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(world, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(world, "dev", "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	var lines []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for line := make([]byte, 64<<10); ; {
			n, err := conn.Read(line)
			if err != nil {
				return
			}
			lines = append(lines, string(line[:n]))
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
		if t.Failed() {
			t.Logf("the system log of %s:\n%s", filepath.Base(world), strings.Join(lines, "\n"))
		}
	})
}
