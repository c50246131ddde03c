-- Remove entries that are older than the retention and that every group has acknowledged.
-- KEYS  stream, {stream}:trimmed, which tells publish.lua what was removed on purpose
-- ARGV  retention in milliseconds
-- Answers how many were removed, and the groups that nobody has read from for the retention: they
-- don't hold the stream back. A group without consumers has no such time, and does.
local retention = tonumber(ARGV[1])
local time = redis.call('TIME')
local ms, seq = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - retention, 0

local function keep(id)
    local m, s = string.match(id, '^(%d+)-(%d+)$')
    m, s = tonumber(m), tonumber(s)
    if m < ms or (m == ms and s < seq) then
        ms, seq = m, s
    end
end

local function abandoned(group)
    local consumers = redis.call('XINFO', 'CONSUMERS', KEYS[1], group)
    for _, consumer in ipairs(consumers) do
        for i = 1, #consumer, 2 do
            if consumer[i] == 'idle' and consumer[i + 1] < retention then
                return false
            end
        end
    end
    return #consumers > 0
end

local stale = {}
if redis.call('EXISTS', KEYS[1]) == 0 then
    return {0, stale}
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for i = 1, #info, 2 do
        group[info[i]] = info[i + 1]
    end
    if abandoned(group['name']) then
        table.insert(stale, group['name'])
    elseif group['pending'] > 0 then
        keep(redis.call('XPENDING', KEYS[1], group['name'])[2])
    else
        keep(group['last-delivered-id'])
    end
end
local id = string.format('%.0f-%.0f', math.max(ms, 0), seq)
local removed = redis.call('XTRIM', KEYS[1], 'MINID', id)
if removed > 0 then
    redis.call('SET', KEYS[2], id)
end
return {removed, stale}
