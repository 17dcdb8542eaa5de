//go:build realclients

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRealHaraka(t *testing.T) {
	needNodeModules(t)
	testRealServer(t, realServer{start: startHaraka, unknown: true})
}

// startHaraka runs one Haraka for each host.
func startHaraka(t *testing.T, dir string, hosts map[string]realHost) {
	mail := makeMaildir(t, dir)
	clients, err := filepath.Abs(filepath.Join("testdata", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	haraka := filepath.Join(clients, "node_modules", "Haraka")
	for name, h := range hosts {
		home := filepath.Join(dir, name)
		config, plugins := filepath.Join(home, "config"), filepath.Join(home, "plugins")
		for _, folder := range []string{config, plugins} {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for file, text := range harakaConfig(h, mail) {
			writePublic(t, filepath.Join(config, file), text)
		}
		links := map[string]string{
			filepath.Join(plugins, "keep.js"):       filepath.Join(clients, "haraka-keep.js"),
			filepath.Join(config, "connection.ini"): filepath.Join(haraka, "config", "connection.ini"),
		}
		if h.chain != "" {
			links[filepath.Join(config, "tls_key.pem")], links[filepath.Join(config, "tls_cert.pem")] = h.chain, h.chain
		}
		for link, file := range links {
			if err := os.Symlink(file, link); err != nil {
				t.Fatal(err)
			}
		}
		cmd := asInstalled(t, "", filepath.Join(home, "world"), realProgram(t, "node"), filepath.Join(haraka, "bin", "haraka"), "-c", home)
		runServer(t, cmd, func() error { return cmd.Process.Kill() })
	}
}

// harakaConfig gives the files of one host's configuration.
func harakaConfig(h realHost, mail string) map[string]string {
	plugins := []string{"keep", "rcpt_to.in_host_list"}
	var tls string
	switch {
	case h.chain == "":
	case h.newest == "1.1":
		// OpenSSL needs to be talked into it.
		tls = "secureProtocol=TLSv1_1_method\nciphers=ALL:@SECLEVEL=0\n"
	case h.newest != "":
		tls = "secureProtocol=TLSv" + strings.ReplaceAll(h.newest, ".", "_") + "_method\n"
	}
	if h.chain != "" {
		plugins = append(plugins, "tls")
	}
	return map[string]string{
		"smtp.ini":     fmt.Sprintf("listen=%s\n", h.addr),
		"me":           "mx." + h.domain + "\n",
		"host_list":    h.domain + "\n",
		"maildir":      mail + "\n",
		"plugins":      strings.Join(plugins, "\n") + "\n",
		"tls.ini":      tls,
		"dhparams.pem": ffdhe2048, // lest it makes some
	}
}

// ffdhe2048 is the group of RFC 7919 appendix A.1.
const ffdhe2048 = `-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
`
