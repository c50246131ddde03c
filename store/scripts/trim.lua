-- Remove entries that are older than the retention, and that all groups that count have acknowledged. Needs
-- entries.lua.
-- KEYS  stream, {stream}:trimmed (it tells publish.lua up to where entries were removed on purpose),
--       {stream}:contact, {stream}:successors, {stream}:holding, {stream}:overtaken, {stream}:unread,
--       {stream}:ages, {stream}:nodes
-- ARGV  retention in milliseconds, the node's number, then the groups of the databases here, made or not
-- Answers how many entries were removed.
--
-- These groups count:
--   * A service's groups, `accounts@…` and `customers@…`, however long nobody has read from them. A service
--     without a group will want everything. A group whose database has a successor is removed. A group of another
--     node or of a standby (see `nodes`) counts while somebody has read from it within ten times the retention.
--   * Any other group, while somebody has read from it within the retention. If nobody ever has, the time counts
--     from when that was first seen, which `unread` has.
-- Entries that were there when Tally first saw the stream are kept for the retention from that time, `contact`.
--
-- `holding` has the position of each service's group that keeps entries beyond the retention; '0-0' for a group
-- not made yet. `overtaken` counts entries that were removed before another program's group had read them, until
-- somebody reads from that group again.
local retention = tonumber(ARGV[1])
local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function id_of(ms, seq)
    return format('%.0f-%.0f', math.max(ms, 0), seq)
end

-- Remove all fields of a hash except these.
local function keep_only(hash, fields)
    for _, name in ipairs(call('HKEYS', hash)) do
        if not fields[name] then
            call('HDEL', hash, name)
        end
    end
end

local unread_yet = {}

local function is_abandoned(group, retention)
    local consumers = call('XINFO', 'CONSUMERS', KEYS[1], group)
    if #consumers == 0 then
        unread_yet[group] = true
        local since = call('HGET', KEYS[7], group)
        if not since then
            call('HSET', KEYS[7], group, now)
        end
        return tonumber(since or now) < now - retention
    end
    for _, consumer in ipairs(consumers) do
        for i = 1, #consumer, 2 do
            if consumer[i] == 'idle' and consumer[i + 1] < retention then
                return false
            end
        end
    end
    return true
end

-- Whether there is an entry from one id to another.
local function any(from, to)
    return #call('XRANGE', KEYS[1], from, to, 'COUNT', 1) > 0
end

call('HDEL', KEYS[5], '') -- so that a full Redis takes the other writes, too: see note_age.lua
call('SET', KEYS[3], now, 'NX')
local contact = tonumber(call('GET', KEYS[3]))
if contact > now then -- by a clock that was ahead
    contact = now
    call('SET', KEYS[3], now)
end
keep_only(KEYS[5], {})
if call('EXISTS', KEYS[1]) == 0 then
    return 0
end

local is_here = {}
for i = 3, #ARGV do
    is_here[ARGV[i]] = true
end
local limit = id_of(now - retention, 0)
local upto, there, others, abandoned = limit, {}, {}, {}
for _, group in ipairs(groups_of(KEYS[1])) do
    local name, from, unread = group['name'], group['last-delivered-id'], nil
    if group['pending'] > 0 then
        from = call('XPENDING', KEYS[1], name)[2]
        unread = from
    else
        unread = '(' .. from
    end
    local service = string.match(name, '^(%l+)@%x+$')
    local is_ours = service == 'accounts' or service == 'customers'
    local told = is_ours and not is_here[name] and call('HGET', KEYS[9], name) or ''
    local number, state = string.match(told, '^(%d+):%d+ ?(%l*)')
    local is_elsewhere = number and (number ~= ARGV[2] or state == 'standby')
    if is_ours and call('HEXISTS', KEYS[4], name) == 1 then
        call('XGROUP', 'DESTROY', KEYS[1], name)
        call('HDEL', KEYS[8], name)
    elseif (not is_ours and is_abandoned(name, retention))
        or (is_elsewhere and is_abandoned(name, 10 * retention)) then
        table.insert(others, {name = name, from = from, unread = unread})
        abandoned[name] = true
    else
        there[service or ''], there[name] = true, true
        if before(from, upto) then
            upto = from
        end
        if is_ours and before(from, limit) and any(unread, limit) then
            call('HSET', KEYS[5], name, from)
        end
    end
end
local wanted = {'accounts', 'customers'}
for i = 3, #ARGV do
    table.insert(wanted, ARGV[i])
end
for _, service in ipairs(wanted) do
    if not there[service] and any('-', limit) then
        call('HSET', KEYS[5], service, '0-0')
        upto = '0-0'
    end
end
keep_only(KEYS[6], abandoned)
keep_only(KEYS[7], unread_yet)
if now < contact + retention then
    return 0
end

-- Group by group, to count what each of them misses.
table.sort(others, function(a, b) return before(a['from'], b['from']) end)
local removed = 0
for place, group in ipairs(others) do
    if before(group['from'], upto) then
        removed = removed + call('XTRIM', KEYS[1], 'MINID', group['from'])
        if string.sub(group['unread'], 1, 1) == '(' then
            removed = removed + call('XDEL', KEYS[1], group['from'])
        end
        group['before'] = removed
    end
end
removed = removed + call('XTRIM', KEYS[1], 'MINID', upto)
for _, group in ipairs(others) do
    if group['before'] and removed > group['before'] then
        call('HINCRBY', KEYS[6], group['name'], removed - group['before'])
    end
end
if removed > 0 then
    call('SET', KEYS[2], upto)
end
return removed
