-- Answer the id of the newest entry that a group has acknowledged, or false when there is none. What it
-- passed over since, see publish.lua, it has not: nobody has told its database.
-- KEYS  stream, {stream}:passed
-- ARGV  group
local delivered
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for i = 1, #info, 2 do
        group[info[i]] = info[i + 1]
    end
    if group['name'] == ARGV[1] then
        delivered = group['last-delivered-id']
    end
end
if not delivered then
    return false
end
local from, to = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%S+) (%S+)$')
if to == delivered then
    delivered = from
end

local count = redis.call('XPENDING', KEYS[1], ARGV[1])[1]
local pending = {}
if count > 0 then
    for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', count)) do
        pending[entry[1]] = true
    end
end

-- What it passed over earlier, before an entry that is pending, is told by its source. Where there is
-- more of that than is looked at, the answer is one of those: the group is set back then, in vain.
local most = count + (from and 1000 or 1)
local entries = redis.call('XREVRANGE', KEYS[1], delivered, '-', 'COUNT', most)
local own, passed = ARGV[1] .. ':', false
for _, entry in ipairs(entries) do
    local is_own = false
    for i = 1, #entry[2], 2 do
        is_own = is_own or (entry[2][i] == 'EventId' and string.sub(entry[2][i + 1], 1, #own) == own)
    end
    if not pending[entry[1]] then
        if not (from and is_own) then
            return entry[1]
        end
        passed = passed or entry[1]
    end
end
return #entries == most and passed
