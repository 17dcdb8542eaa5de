package relay

import "tlsrelay/policy"

// Split groups the recipients of m by destination, in the order in which the
// destinations first occur, one Delivery each. class gives the policy class
// of a destination. The deliveries are due when the message was accepted.
func Split(m Message, rcpts []Recipient, class func(destination string) policy.Class) []Delivery {
	var ds []Delivery
	at := make(map[string]int, 1)
	for _, r := range rcpts {
		dest := r.Address.Destination()
		i, ok := at[dest]
		if !ok {
			i = len(ds)
			at[dest] = i
			ds = append(ds, Delivery{
				Key:     DeliveryKey{Message: m.ID, Number: uint16(i)},
				Account: m.Account,
				Lane:    Lane{Destination: dest, Class: class(dest)},
				Due:     m.Accepted,
			})
		}
		ds[i].Recipients = append(ds[i].Recipients, r)
	}
	return ds
}
