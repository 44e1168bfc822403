-- ARGV: queue, entry, now as text, most losses (0: don't count), packed text.
return rescue(ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], 'process', clock())
