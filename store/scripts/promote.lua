-- Have a standby's databases take the number of the node that they follow; whoever had it is a standby from now on.
-- KEYS  {stream}:nodes and {stream}:leases, as in take_number.lua
-- ARGV  the number. Then for each database its name, its service's URL, and a lease: that of the one that has the
--       number must still say this. '' where it may say anything, '-' where there is to be none
-- Answers `promoted`. Or `alive`, and which database has renewed its lease: then nothing is changed. Then the hash
-- of nodes, names and values in turn.
--
-- A promotion counts as a thousand changes: a Redis that has lost it, and has had a few others since, is told of
-- it by whoever knows.
local KEYS, ARGV, call = KEYS, ARGV, redis.call
local number, PROMOTION = ARGV[1], 1000

local function read(value)
    local held, changes, at = string.match(value or '', '^(%d%d?%d?%d?):(%d+) ?(.*)$')
    return held, at, tonumber(changes or 0)
end

local function answer(what, detail)
    local all = {what, detail}
    for _, each in ipairs(call('HGETALL', KEYS[1])) do
        table.insert(all, each)
    end
    return all
end

-- The databases that have the number, of the service of this one.
local function holders(database)
    local found, service = {}, string.match(database, '^(%l+)@')
    local all = call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
        local held, at = read(all[i + 1])
        if held == number and at ~= 'removed' and string.sub(at, 1, 7) ~= 'standby'
            and all[i] ~= database and string.match(all[i], '^(%l+)@') == service then
            table.insert(found, all[i])
        end
    end
    return found
end

for i = 2, #ARGV, 3 do
    for _, other in ipairs(holders(ARGV[i])) do
        local lease = call('HGET', KEYS[2], other) or '-'
        if ARGV[i + 2] ~= '' and lease ~= ARGV[i + 2] then
            return answer('alive', other)
        end
    end
end
for i = 2, #ARGV, 3 do
    local database, url = ARGV[i], ARGV[i + 1]
    local _, _, changes = read(call('HGET', KEYS[1], database))
    for _, other in ipairs(holders(database)) do
        local _, at, theirs = read(call('HGET', KEYS[1], other))
        changes = math.max(changes, theirs)
        call('HSET', KEYS[1], other, string.format('%s:%.0f standby', number, theirs + PROMOTION)
            .. (at == '' and '' or ' ' .. at))
    end
    call('HSET', KEYS[1], database, string.format('%s:%.0f', number, changes + PROMOTION)
        .. (url == '' and '' or ' ' .. url))
end
return answer('promoted', '')
