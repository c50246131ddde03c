-- Take a node's number for a database, and see that no other database of its service has it.
-- KEYS  {stream}:nodes: from database, as `<service>@<identity>`, to its number, how often that was changed, and
--       its service's URL: `1:0 http://…`. In the place of the URL `removed`, when it is gone for good; before
--       it `standby`, when it follows the one that has the number. `since` tells since when (ms) there is such
--       a hash.
--       {stream}:leases: from database to the place where it is at work, and when that was said last (ms)
--       {stream}:published, which tells who has published before there were numbers
-- ARGV  database, number, URL.
--       How long the hash must have been there before a new number is taken (ms).
--       The place where this database is, '' when that is no matter; how long that holds unless it is said again (ms).
--       Whose number it may take: '' nobody's, 'idle' that of one that is not at work, 'any' anybody's. 'standby'
--       where it follows whoever has the number.
--       `moved` where it was at work in another place, and may still be there; else ''.
--       Then what the database knows of the hash of nodes: names and values in turn.
-- Answers what was found, and more of it; then the hash of nodes, names and values in turn:
--       `taken`.
--       `standby`, and which database has the number.
--       `wait`, and for how many milliseconds.
--       `free`: one that was moved finds nobody at work, and has taken nothing.
--       `another`, and which database has the number.
--       `elsewhere`, as this database is at work in another place, or `busy`, as one is whose place it may take:
--       for how many milliseconds that holds, when it was said, and which database.
--
-- What Redis has lost comes back from whoever knows it: of two the one that was changed more often. So a number
-- that nobody here is known to have may be somebody's who has not told yet.
--
-- Two databases that published before there were numbers may share one. Then `holder` passes over those that
-- this database knows already.
local KEYS, ARGV, call = KEYS, ARGV, redis.call
local database, number, url, wait = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local place, lease, may_replace, moved = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8] ~= ''

local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local since = tonumber(call('HGET', KEYS[1], 'since') or '')
if not since or since > now then -- by a clock that was ahead
    since = now
    call('HSET', KEYS[1], 'since', string.format('%.0f', now))
end

-- Where a database is at work, as that was said lately: then for how long it holds, and when it was said.
local function work_of(name)
    local where, said = string.match(call('HGET', KEYS[2], name) or '', '^(%S+) (%d+)$')
    local ago = now - tonumber(said or now)
    if where and ago >= 0 and ago < lease then
        return where, string.format('%.0f %s %s', lease - ago, said, name)
    end
end

local function read(value)
    local held, changes, at = string.match(value or '', '^(%d%d?%d?%d?):(%d+) ?(.*)$')
    return held, at, tonumber(changes or -1)
end

local function write(name, held, at, changes)
    call('HSET', KEYS[1], name, held .. ':' .. string.format('%.0f', changes) .. (at == '' and '' or ' ' .. at))
end

local function service_of(name)
    return string.match(name, '^(%l+)@')
end

local function has_number(at)
    return at ~= 'removed' and string.sub(at, 1, 7) ~= 'standby'
end

-- Who has a number, of the databases of one service; none of those that are named.
local function holder(service, wanted, but)
    local all = call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
        local held, at = read(all[i + 1])
        if held == wanted and has_number(at) and not but[all[i]] and service_of(all[i]) == service then
            return all[i]
        end
    end
end

local function answer(what, detail)
    local all = {what, detail}
    for _, each in ipairs(call('HGETALL', KEYS[1])) do
        table.insert(all, each)
    end
    return all
end

if place ~= '' then
    local where, detail = work_of(database)
    if where and where ~= place then
        return answer('elsewhere', detail)
    elseif moved and not where then
        return answer('free', '')
    end
end

local known = {}
for i = 9, #ARGV, 2 do
    known[ARGV[i]] = true
end
for i = 9, #ARGV, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    local held, at, changes = read(value)
    local _, _, here = read(call('HGET', KEYS[1], name))
    local service = service_of(name)
    if service and changes > here and (not has_number(at) or not holder(service, held, known)) then
        call('HSET', KEYS[1], name, value)
    end
end

local function is_at_work()
    if place ~= '' then
        call('HSET', KEYS[2], database, place .. string.format(' %.0f', now))
    end
end

local held, at, changes = read(call('HGET', KEYS[1], database))
local is_standby = held == number and string.sub(at, 1, 7) == 'standby'
if is_standby or (may_replace == 'standby' and not (held == number and has_number(at))) then
    local told = url == '' and 'standby' or 'standby ' .. url
    if at ~= told then
        write(database, number, told, changes + 1)
    end
    is_at_work()
    return answer('standby', holder(service_of(database), number, {[database] = true}) or '')
end

-- Of two that have the number, one was promoted while Redis knew nothing of the other: as promote.lua counts.
local rival = held == number and holder(service_of(database), number, {[database] = true})
if rival then
    local _, _, theirs = read(call('HGET', KEYS[1], rival))
    if theirs >= changes + 1000 then
        write(database, number, url == '' and 'standby' or 'standby ' .. url, theirs)
        is_at_work()
        return answer('standby', rival)
    end
end

local has_it = held == number and has_number(at)
local other = not has_it and holder(service_of(database), number, {[database] = true})
local had_published = not held and tonumber(call('HGET', KEYS[3], database) or '0') > 0
if other and not had_published then
    local _, detail = work_of(other)
    if may_replace == '' then
        return answer('another', other)
    elseif may_replace == 'idle' and detail then
        return answer('busy', detail)
    end
    local _, _, theirs = read(call('HGET', KEYS[1], other))
    write(other, number, 'removed', theirs + 1)
elseif not has_it and not other and now - since < wait then
    return answer('wait', string.format('%.0f', wait - (now - since)))
end
if not has_it or at ~= url then
    write(database, number, url, changes + 1)
end
is_at_work()
return answer('taken', '')
