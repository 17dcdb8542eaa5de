// Package configs reads the relay's settings: the defaults (defaults.yaml,
// embedded and printed by `tlsrelay config defaults`), a YAML file over them,
// the environment over that.
//
//	config.go    Config: what can be set
//	load.go      Load: file and environment -> Config, every fault with its line
//	env.go       variables that name no key
//	validate.go  what values are possible
//	warn.go      what is possible and likely wrong
//
// Loading is strict: it reports all unknown keys, wrong types and impossible values
// together. There is no key that nothing reads.
package configs

import (
	_ "embed"
	"net/netip"
	"time"

	"tlsrelay/policy"
)

// Defaults is the annotated file of defaults.
//
//go:embed defaults.yaml
var Defaults string

// Config is everything that can be set. The comments stand in defaults.yaml.
type Config struct {
	Hostname    string        `yaml:"hostname"`
	DataDir     string        `yaml:"data_dir"`
	Log         Log           `yaml:"log"`
	Retention   time.Duration `yaml:"retention"`
	MinFreeDisk uint64        `yaml:"min_free_disk"`
	Submission  Submission    `yaml:"submission"`
	API         API           `yaml:"api"`
	Admin       Admin         `yaml:"admin"`
	Delivery    Delivery      `yaml:"delivery"`
	Webhooks    Webhooks      `yaml:"webhooks"`
}

// Log is how the log is written.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Submission is where mail comes in.
type Submission struct {
	Listen                []string       `yaml:"listen"`
	ListenTLS             []string       `yaml:"listen_tls"`
	CertFile              string         `yaml:"cert_file"`
	KeyFile               string         `yaml:"key_file"`
	AllowPlaintextAuth    bool           `yaml:"allow_plaintext_auth"`
	TrustedNetworks       []netip.Prefix `yaml:"trusted_networks"`
	BareNewlines          string         `yaml:"bare_newlines"`
	MaxMessageBytes       int64          `yaml:"max_message_bytes"`
	MaxRecipients         int            `yaml:"max_recipients"`
	MaxConnections        int            `yaml:"max_connections"`
	MaxConnectionsPerIP   int            `yaml:"max_connections_per_ip"`
	MaxStrangersPerIP     int            `yaml:"max_strangers_per_ip"`
	LoginTimeout          time.Duration  `yaml:"login_timeout"`
	ProxyProtocol         []netip.Prefix `yaml:"proxy_protocol"`
	MaxWaiting            int            `yaml:"max_waiting_per_account"`
	MaxDestinations       int            `yaml:"max_destinations_per_account"`
	AuthFailuresPerMinute int            `yaml:"auth_failures_per_minute"`
	IdleTimeout           time.Duration  `yaml:"idle_timeout"`
}

// API is the public API's listener.
type API struct {
	Listen            string `yaml:"listen"`
	CertFile          string `yaml:"cert_file"`
	KeyFile           string `yaml:"key_file"`
	RequestsPerMinute int    `yaml:"requests_per_minute"`
}

// Admin is the operator's listener.
type Admin struct {
	Listen   string   `yaml:"listen"`
	Token    string   `yaml:"token"`
	CertFile string   `yaml:"cert_file"`
	KeyFile  string   `yaml:"key_file"`
	Hosts    []string `yaml:"hosts"`
}

// Delivery is how mail goes out.
type Delivery struct {
	Port                         int                 `yaml:"port"`
	Resolver                     string              `yaml:"resolver"`
	DNSSEC                       string              `yaml:"dnssec"`
	RootCAFile                   string              `yaml:"root_ca_file"`
	SourceAddresses              []netip.Addr        `yaml:"source_addresses"`
	Routes                       map[string]string   `yaml:"routes"`
	IgnoreKeywords               map[string][]string `yaml:"ignore_keywords"`
	AllowPrivateAddresses        bool                `yaml:"allow_private_addresses"`
	OpportunisticMinVersion      policy.Version      `yaml:"opportunistic_min_version"`
	PolicyWindow                 time.Duration       `yaml:"policy_window"`
	PolicyConfirmAfter           time.Duration       `yaml:"policy_confirm_after"`
	ViolationGuardDomains        int                 `yaml:"violation_guard_domains"`
	ViolationGuardWithin         time.Duration       `yaml:"violation_guard_within"`
	ConnectTimeout               time.Duration       `yaml:"connect_timeout"`
	HandshakeTimeout             time.Duration       `yaml:"handshake_timeout"`
	CommandTimeout               time.Duration       `yaml:"command_timeout"`
	RetryAfter                   time.Duration       `yaml:"retry_after"`
	RetryMax                     time.Duration       `yaml:"retry_max"`
	Lifetime                     time.Duration       `yaml:"lifetime"`
	MaxConnections               int                 `yaml:"max_connections"`
	MaxConnectionsPerDestination int                 `yaml:"max_connections_per_destination"`
	MaxMessagesPerConnection     int                 `yaml:"max_messages_per_connection"`
	MaxRecipientsPerTransaction  int                 `yaml:"max_recipients_per_transaction"`
	IdleTimeout                  time.Duration       `yaml:"idle_timeout"`
}

// Webhooks is how events are posted.
type Webhooks struct {
	FlushInterval time.Duration `yaml:"flush_interval"`
	FlushBytes    int           `yaml:"flush_bytes"`
	RetryAfter    time.Duration `yaml:"retry_after"`
	RetryMax      time.Duration `yaml:"retry_max"`
	RetryFor      time.Duration `yaml:"retry_for"`
	AllowInsecure bool          `yaml:"allow_insecure"`
}
