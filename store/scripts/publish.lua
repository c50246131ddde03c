-- Publish a batch of one source's events, each at most once; answer the last sequence published.
-- KEYS  stream, {stream}:published, {stream}:fingerprints
-- ARGV  source, floor, first sequence, then type, payload and trace parent ('' for none) of each event
--
-- The hash remembers the last sequence of each source, and loses it together with the entries. A
-- batch that starts beyond last + 1 would leave a gap: nothing is published, and the answer tells
-- the relay where to go on. What lies below `floor` is no longer in the outbox and can't be had.
-- The fingerprint of the last payload lets a relay tell whether its outbox is the one that was read.
local source, floor, first = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local last = math.max(tonumber(redis.call('HGET', KEYS[2], source) or '0'), floor)
if first > last + 1 then
    return last
end

local sequence = first - 1
for i = 4, #ARGV, 3 do
    sequence = sequence + 1
    if sequence > last then
        local id = source .. ':' .. string.format('%.0f', sequence)
        if ARGV[i + 2] == '' then
            redis.call('XADD', KEYS[1], '*', 'EventTypeName', ARGV[i], 'Payload', ARGV[i + 1], 'EventId', id)
        else
            redis.call('XADD', KEYS[1], '*', 'EventTypeName', ARGV[i], 'Payload', ARGV[i + 1], 'EventId', id,
                'TraceParent', ARGV[i + 2])
        end
    end
end
if sequence > last then
    redis.call('HSET', KEYS[2], source, string.format('%.0f', sequence))
    redis.call('HSET', KEYS[3], source, redis.sha1hex(ARGV[#ARGV - 1]))
    last = sequence
end
return last
