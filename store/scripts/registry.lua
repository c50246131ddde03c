-- The hash of nodes, `{stream}:nodes`: KEYS[1] of the scripts that this is put before.
--
-- Its fields are databases, as `<service>@<identity>`; a value is `number:changes`, and what is told of the
-- database, its service's URL for example. Of two values that were read, the one with more changes is newer.
local KEYS, ARGV, call = KEYS, ARGV, redis.call
local PROMOTION = 1000 -- changes that a promotion counts as: a Redis that has lost it, and had a few since, is told

-- The number in a value, what is told, and the changes; -1 for what is no value.
local function read(value)
    local held, changes, told = string.match(value or '', '^(%d%d?%d?%d?):(%d+) ?(.*)$')
    return held, told, tonumber(changes or -1)
end

local function read_of(database)
    return read(call('HGET', KEYS[1], database))
end

local function write(database, number, told, changes)
    call('HSET', KEYS[1], database, string.format('%s:%.0f', number, changes) .. (told == '' and '' or ' ' .. told))
end

local function service_of(database)
    return string.match(database, '^(%l+)@')
end

-- Whether a database has the number that it names: it is neither removed nor a standby.
local function has_number(told)
    return told ~= 'removed' and string.sub(told, 1, 7) ~= 'standby'
end

local function standby(url)
    return url == '' and 'standby' or 'standby ' .. url
end

-- The databases of one service that have a number; none of the names in `but`.
local function holders(service, number, but)
    local found, all = {}, call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
        local held, told = read(all[i + 1])
        if held == number and has_number(told) and not but[all[i]] and service_of(all[i]) == service then
            table.insert(found, all[i])
        end
    end
    return found
end

-- An answer: what was done, a detail, and then the hash, names and values in turn.
local function answer(what, detail)
    local all = {what, detail}
    for _, each in ipairs(call('HGETALL', KEYS[1])) do
        table.insert(all, each)
    end
    return all
end
