package store

import "github.com/prometheus/client_golang/prometheus"

// collector shows how deep the queue is and how the store does. It is asked
// when somebody looks, so nothing has to be kept up to date.
type collector struct {
	s *Store

	messages, deliveries, up, free, minFree, size *prometheus.Desc
	limit, refusals, reserved                     *prometheus.Desc
	events, eventBytes, eventLimit                *prometheus.Desc
}

func newCollector(s *Store) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tlsrelay_"+name, help, labels, nil)
	}
	return &collector{
		s:          s,
		messages:   desc("queue_messages", "Messages in the queue."),
		deliveries: desc("queue_deliveries", "Deliveries in the queue, one per message and destination.", "state"),
		up:         desc("store_up", "1 while the store can read and write."),
		free:       desc("store_free_bytes", "Free space on the disk of the data directory."),
		minFree:    desc("store_min_free_bytes", "Below so much free space no mail is taken: min_free_disk."),
		size:       desc("store_bytes", "What the database takes on the disk, large bodies not included."),
		reserved:   desc("store_reserved_bytes", "What writes of new mail under way may take of the free space."),
		events:     desc("webhook_events_waiting", "Events that wait for webhooks, one for each event and endpoint."),
		eventBytes: desc("webhook_events_waiting_bytes", "What they take in the store, before compression."),
		eventLimit: desc("webhook_events_waiting_limit_bytes", "What those of one account may take before its oldest are given up."),
		limit: desc("account_waiting_limit",
			"What one account may have waiting, by bound: recipients, and destinations with mail waiting; 0: no limit.", "bound"),
		refusals: desc("account_waiting_refusals_total",
			"Messages, or attempts to begin one, that were refused because their account has as much waiting as it may, by bound.", "bound"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	var messages, waiting, held, up, size, rows, octets float64
	if db, err := c.s.engine.Enter(); err == nil {
		m, w, h := c.s.tally.Depth()
		messages, waiting, held = float64(m), float64(w), float64(h)
		n, of := c.s.outbox.Waiting()
		rows, octets = float64(n), float64(of)
		up, size = 1, float64(db.DiskUsage())
		c.s.engine.Leave()
	}
	gauge(c.messages, messages)
	gauge(c.events, rows)
	gauge(c.eventBytes, octets)
	gauge(c.eventLimit, float64(c.s.outbox.Bound()))
	gauge(c.reserved, float64(c.s.engine.Reserved()))
	gauge(c.deliveries, waiting, "waiting")
	gauge(c.deliveries, held, "held")
	gauge(c.up, up)
	gauge(c.size, size)
	gauge(c.minFree, float64(c.s.o.MinFreeDisk))
	b := c.s.tally.Bounds()
	gauge(c.limit, float64(b.Recipients), "recipients")
	gauge(c.limit, float64(b.Destinations), "destinations")
	recipients, destinations, disk := c.s.tally.Refused()
	for bound, n := range map[string]uint64{"recipients": recipients, "destinations": destinations, "disk": disk} {
		ch <- prometheus.MustNewConstMetric(c.refusals, prometheus.CounterValue, float64(n), bound)
	}
	if free, err := c.s.engine.Free(); err == nil {
		gauge(c.free, float64(free))
	}
}

func (s *Store) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	s.collector = newCollector(s)
	return reg.Register(s.collector)
}

func (s *Store) unregister(reg prometheus.Registerer) {
	if reg != nil && s.collector != nil {
		reg.Unregister(s.collector)
	}
}
