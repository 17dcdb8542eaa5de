package relaytest

// LookAlikes are what some servers take for the end of the content, and what is stored of it.
// In DATA a dot is taken off behind CRLF and, where two stand, behind a bare LF.
var LookAlikes = map[string]struct{ Wire, Data, Chunk string }{
	"LF.LF":           {"\n.\n", "\r\n.\r\n", "\r\n.\r\n"},
	"LF.CRLF":         {"\n.\r\n", "\r\n.\r\n", "\r\n.\r\n"},
	"LF..CRLF":        {"\n..\r\n", "\r\n.\r\n", "\r\n..\r\n"},
	"LF...LF":         {"\n...\n", "\r\n..\r\n", "\r\n...\r\n"},
	"LF.x":            {"\n.x", "\r\n.x", "\r\n.x"},
	"CRLF.LF":         {"\r\n.\n", "\r\n\r\n", "\r\n.\r\n"},
	"CR.CR":           {"\r.\r", " . ", " . "},
	"CRLF.CR":         {"\r\n.\r", "\r\n ", "\r\n. "},
	"CRCRLF":          {"\r\r\n", "\r\n", "\r\n"},
	"CRCRCRLF":        {"\r\r\r\n", "\r\n", "\r\n"},
	"CRCRLF..CRLF":    {"\r\r\n..\r\n", "\r\n.\r\n", "\r\n..\r\n"},
	"CR.CRLF":         {"\r.\r\n", " .\r\n", " .\r\n"},
	"LF alone":        {"\n", "\r\n", "\r\n"},
	"CR alone":        {"\r", " ", " "},
	"CRCR alone":      {"\r\r", "  ", "  "},
	"CRLF.CRCRLF":     {"\r\n.\r\r\n", "\r\n\r\n", "\r\n.\r\n"},
	"CRLF..LF":        {"\r\n..\n", "\r\n.\r\n", "\r\n..\r\n"},
	"CRLF.CR then":    {"\r\n.\r.\r\n", "\r\n .\r\n", "\r\n. .\r\n"},
	"CR NUL LF.CRLF":  {"\r\x00\n.\r\n", " \x00\r\n.\r\n", " \x00\r\n.\r\n"},
	"CRLF.NUL CRLF":   {"\r\n.\x00\r\n", "\r\n\x00\r\n", "\r\n.\x00\r\n"},
	"CRLF NUL ..CRLF": {"\r\n\x00..\r\n", "\r\n\x00..\r\n", "\r\n\x00..\r\n"},
	"NUL":             {"\x00", "\x00", "\x00"},
}

// EndsElsewhere are what is no end of a message here, and may be one where the content goes.
var EndsElsewhere = map[string]string{
	"CRLF NUL.":        "\r\n\x00.\r\n",
	"LF NUL NUL.NULLF": "\n\x00\x00.\x00\n",
}
