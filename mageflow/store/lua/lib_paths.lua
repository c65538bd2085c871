-- Library of the record scripts: the part of the grammar of paths and run ids that they need. Written down whole in
-- store/paths.py; a test compares the two.
local PARENT_REPORT, UNDELIVERABLE = '!parent', 'undeliverable'

-- The path a member's definition is stored under: all runs of a signature share its definitions.
local function definition_path(path) return (string.gsub(path, '^@[^.]*', '')) end

-- The member a callback belongs to; nil if the path is not a callback's.
local function owner_of(path) return string.match(path, '^(.*)%.[se]%d+$') end

local function is_success_callback(path) return string.match(path, '%.s%d+$') ~= nil end

-- A run that a user starts from a plain signature; false for its callbacks.
local function is_user_run_path(path) return string.match(path, '^@[^.]*$') ~= nil end

local function callback_path(owner, succeeded, index) return owner .. (succeeded and '.s' or '.e') .. index end

-- The key of the nested flow a run id stands for; nil for a run of Hatchet.
local function flow_of_run(run) return run and string.match(run, '^flow:(.*)$') end

local function cancellation_of(run) return '!cancel:' .. run end

local function action_on(action, flow) return '!' .. action .. ':' .. flow end

local function is_member(field) return string.sub(field, 1, 1) ~= '!' end

-- Fields beside the members' own: the input of a user's run (in results), and where an addition to a swarm began (in
-- members).
local function input_of(path) return 'input:' .. path end

local function addition_of(token) return 'added:' .. token end

-- Entries of the held list: start:<path>, ended:<path>, member:<path>.
local function held_as(what, path) return what .. ':' .. path end

local function read_held(entry) return string.match(entry, '^(%a+):(.*)$') end
