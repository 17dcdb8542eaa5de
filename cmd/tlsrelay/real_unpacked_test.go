//go:build realclients

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	var root string
	if name != "" {
		root = unpacked(t, name)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", asInstalledScript, "sh", root, world, program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	cmd.Dir = "/"
	return cmd
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
[ -z "$package" ] || mount -t overlay overlay -o "lowerdir=$package/usr:/usr" /usr
etc=$world/etc
[ -z "$package" ] || [ ! -d "$package/etc" ] || etc=$etc:$package/etc
mount -t overlay overlay -o "lowerdir=$etc:/etc" /etc
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
