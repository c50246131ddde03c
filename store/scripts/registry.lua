-- The hash of nodes, `{stream}:nodes`: KEYS[1] of the scripts that this is put before.
--
-- Its fields are databases, as `<service>@<identity>`. A value is `number:changes`, and then details of the
-- database, such as its service's URL. Of two values, the one with more changes is newer.
local KEYS, ARGV, call = KEYS, ARGV, redis.call
local PROMOTION = 1000 -- counts as so many changes, so it wins over a few that a Redis without it has had since

-- The number in a value, its details, and its changes; -1 changes for an invalid value.
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

-- The databases of one service that have a number, without the names in `but`.
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

-- An answer: the result, a detail, and then the hash's names and values in turn.
local function answer(what, detail)
    local all = {what, detail}
    for _, each in ipairs(call('HGETALL', KEYS[1])) do
        table.insert(all, each)
    end
    return all
end
