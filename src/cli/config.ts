/**
 * The daemon's configuration: flags over environment over a file over defaults. One table says every key there is, with
 * its kind and bounds; config/default.jsonc explains them to operators, and a test holds the two together.
 */
import { readFile } from 'node:fs/promises'
import { closest, distance } from 'fastest-levenshtein'
import stripJsonComments from 'strip-json-comments'
import { z } from 'zod'
import {
  CONFIG_BYTES_MAX, ConfigError, INVITE_ADDRESSES_MAX, LABELS_MAX, LABEL_BYTES_MAX, asError, isRecord
} from '../base/index.ts'
import { API_TCP, HUGGING_FACE, METRICS, checkListen } from '../api/listen.ts'
import type { PartialSettings } from '../node/init.ts'
import { BACKGROUND_RATES_MAX, backgroundRate, settingBounds } from '../node/setting-bounds.ts'
import type { NodeSettings } from '../node/types.ts'
import { defaultReplication } from '../replication/settings.ts'
import { address, bounded, flag, hostPort, list, logLevels, optional, rateWindows, text, upstream, whole, type HostPort } from './config-values.ts'
import type { LogLevels } from './log-levels.ts'

/** Invites and addresses together; more are no help to find one that answers. */
const JOIN_MAX = 64

/** What a key that is not a NodeSettings one sets. */
export interface DaemonSettings {
  api: { tcp: { host: string, port: number | undefined, tokenFile: string | undefined, allowRemote: boolean, hosts: string[] } }
  /** The endpoint for Hugging Face clients; without `listen` there is none. */
  hf: { listen: HostPort | undefined, allowRemote: boolean, hosts: string[] }
  /** Where metrics are told without a token; without `listen` nowhere. */
  metrics: { listen: HostPort | undefined, allowRemote: boolean, hosts: string[] }
  log: { level: LogLevels, format: 'auto' | 'pretty' | 'json' }
}

export interface Config {
  node: PartialSettings
  daemon: DaemonSettings
}

const { storage, announce, transfer, lane, replication, network } = settingBounds

const KEYS = {
  listen: list(address, INVITE_ADDRESSES_MAX),
  announceAddresses: list(address, INVITE_ADDRESSES_MAX),
  join: list(text, JOIN_MAX),
  'storage.quota': optional(bounded(storage.quota)),
  'storage.donate': bounded(storage.donate),
  'storage.directIo': z.enum(['auto', 'on', 'off'], 'must be auto, on or off'),
  'storage.slots': bounded(storage.slots),
  'storage.syncBytes': bounded(storage.syncBytes),
  'storage.syncIntervalMs': bounded(storage.syncIntervalMs),
  'announce.mode': z.enum(['adaptive', 'all', 'shards'], 'must be adaptive, all or shards'),
  'announce.periodMs': bounded(announce.periodMs),
  'announce.concurrency': bounded(announce.concurrency),
  'transfer.providerTimeoutMs': bounded(transfer.providerTimeoutMs),
  'transfer.stallTimeoutMs': bounded(transfer.stallTimeoutMs),
  'transfer.requestTimeoutMs': bounded(transfer.requestTimeoutMs),
  'transfer.peersMax': bounded(transfer.peersMax),
  'transfer.serverRequestsPerPeer': bounded(transfer.serverRequestsPerPeer),
  'transfer.hashThreads': optional(bounded(transfer.hashThreads)),
  'lane.enabled': flag,
  'lane.port': optional(bounded(lane.port)),
  'lane.threads': optional(bounded(lane.threads)),
  'lane.bytesPerSecond.up': optional(bounded(transfer.uploadBytesPerSecond)),
  'lane.bytesPerSecond.down': optional(bounded(transfer.downloadBytesPerSecond)),
  'lane.bytesPerSecond.perPeer': optional(bounded(transfer.peerBytesPerSecond)),
  'lane.bytesPerSecond.background': rateWindows(backgroundRate.min, BACKGROUND_RATES_MAX),
  'replication.min': bounded(replication.min),
  'replication.target': bounded(replication.target),
  'replication.max': bounded(replication.max),
  'replication.grace.lastCopy': bounded(replication.graceLastCopyMs),
  'replication.grace.twoCopies': bounded(replication.graceTwoCopiesMs),
  'replication.grace.default': bounded(replication.graceDefaultMs),
  'replication.settle': bounded(replication.settleMs),
  'replication.proofTtl': bounded(replication.proofTtlMs),
  'replication.suspect': bounded(replication.suspectMs),
  'replication.down': bounded(replication.downMs),
  'replication.rankDelay': bounded(replication.rankDelayMs),
  'replication.brake.share': bounded(replication.brakeShare),
  'replication.brake.window': bounded(replication.brakeWindowMs),
  'replication.brake.max': bounded(replication.brakeMaxMs),
  'replication.trimEvery': bounded(replication.trimEveryMs),
  'replication.trimProof': bounded(replication.trimProofMs),
  'replication.disputedEvery': bounded(replication.disputedEveryMs),
  'replication.repairBytesPerSecond': bounded(replication.repairBytesPerSecond),
  'replication.pullsMax': bounded(replication.pullsMax),
  'replication.offersMax': bounded(replication.offersMax),
  'replication.rebalance.share': bounded(replication.rebalanceShare),
  'replication.rebalance.every': bounded(replication.rebalanceEveryMs),
  'scrub.period': bounded(replication.scrubPeriodMs),
  'scrub.suspectBlocks': bounded(replication.scrubSuspectBlocks),
  'network.maxConnections': bounded(network.maxConnections),
  'network.inboundPerSecond': bounded(network.inboundPerSecond),
  'network.openSwarm': flag,
  'api.tcp.host': text,
  'api.tcp.port': optional(whole(0, 65_535)),
  'api.tcp.tokenFile': optional(text),
  'api.tcp.allowRemote': flag,
  'api.tcp.hosts': list(text, 64),
  'hf.listen': optional(hostPort),
  'hf.allowRemote': flag,
  'hf.hosts': list(text, 64),
  'hf.upstream': optional(upstream),
  'metrics.listen': optional(hostPort),
  'metrics.allowRemote': flag,
  'metrics.hosts': list(text, 64),
  'log.level': logLevels,
  'log.format': z.enum(['auto', 'pretty', 'json'], 'must be auto, pretty or json')
} as const satisfies Record<string, z.ZodType>

type ReplicationName = keyof NodeSettings['replication']

/** The keys of replication are named for operators, the settings for the code, with their units. */
const REPLICATION_KEYS = {
  min: 'replication.min',
  target: 'replication.target',
  max: 'replication.max',
  graceLastCopyMs: 'replication.grace.lastCopy',
  graceTwoCopiesMs: 'replication.grace.twoCopies',
  graceDefaultMs: 'replication.grace.default',
  settleMs: 'replication.settle',
  proofTtlMs: 'replication.proofTtl',
  suspectMs: 'replication.suspect',
  downMs: 'replication.down',
  rankDelayMs: 'replication.rankDelay',
  brakeShare: 'replication.brake.share',
  brakeWindowMs: 'replication.brake.window',
  brakeMaxMs: 'replication.brake.max',
  trimEveryMs: 'replication.trimEvery',
  trimProofMs: 'replication.trimProof',
  disputedEveryMs: 'replication.disputedEvery',
  repairBytesPerSecond: 'replication.repairBytesPerSecond',
  pullsMax: 'replication.pullsMax',
  offersMax: 'replication.offersMax',
  rebalanceShare: 'replication.rebalance.share',
  rebalanceEveryMs: 'replication.rebalance.every',
  scrubPeriodMs: 'scrub.period',
  scrubSuspectBlocks: 'scrub.suspectBlocks'
} as const satisfies Record<ReplicationName, keyof typeof KEYS>

/** Caps stand with lanes, which carry nearly all bytes, and hold for streams as well. */
const CAP_KEYS = {
  uploadBytesPerSecond: 'lane.bytesPerSecond.up',
  downloadBytesPerSecond: 'lane.bytesPerSecond.down',
  peerBytesPerSecond: 'lane.bytesPerSecond.perPeer',
  backgroundRates: 'lane.bytesPerSecond.background'
} as const satisfies Partial<Record<keyof NodeSettings['transfer'], keyof typeof KEYS>>

type Key = keyof typeof KEYS

/** Messages go into logs: invites hold the swarm key, and an address may come with a password. */
const SECRET_KEYS: ReadonlySet<Key> = new Set<Key>(['join', 'hf.upstream'])
/** An invite, or a piece of one; src/discovery/invite.ts. */
const INVITE = /shoal1/i

type Values = { [K in Key]?: z.output<typeof KEYS[K]> }

export const configKeys: readonly string[] = [...Object.keys(KEYS), 'labels']
const SECTIONS = [...new Set(configKeys.filter(key => key.includes('.')).map(key => key.slice(0, key.indexOf('.'))))]

/** One source of settings, as it was written: dotted keys and raw values. Later layers win, key by key. */
export interface Layer {
  /** For messages: "--set", the name of the file. */
  source: string
  values: Map<string, unknown>
}

/** What the layers say together, checked. Throws ConfigError that names key, source and what would be right. */
export function resolveConfig (layers: readonly Layer[]): Config {
  const raw = new Map<Key, { value: unknown, source: string }>()
  const labels: Record<string, string> = {}
  for (const { source, values } of layers) {
    for (const [key, value] of values) {
      if (key.startsWith('labels.')) labels[labelName(key.slice('labels.'.length), source)] = labelValue(key, value, source)
      else if (isKey(key)) raw.set(key, { value, source })
      else throw unknownKey(key, source)
    }
  }
  if (Object.keys(labels).length > LABELS_MAX) throw new ConfigError(`${Object.keys(labels).length} labels are set; a node can have ${LABELS_MAX} at most`)
  const values: Record<string, unknown> = {}
  for (const [key, { value, source }] of raw) {
    const checked = KEYS[key].safeParse(value)
    if (!checked.success) throw wrongValue(key, checked.error, { value, source })
    values[key] = checked.data
  }
  const config = assemble(values as Values, labels)
  checkReach(config.daemon)
  return config
}

/** Throws ConfigError when it cannot be read or is no JSON (comments and trailing commas are fine). */
export async function readConfigFile (path: string): Promise<Layer> {
  let value: unknown
  try {
    const content = await readFile(path, 'utf8')
    if (Buffer.byteLength(content) > CONFIG_BYTES_MAX) throw new Error(`it is larger than ${CONFIG_BYTES_MAX} bytes`)
    value = JSON.parse(stripJsonComments(content, { trailingCommas: true }))
  } catch (error) {
    throw new ConfigError(`cannot use the configuration file ${path}: ${asError(error).message}`, { cause: error })
  }
  if (!isRecord(value)) throw new ConfigError(`the configuration file ${path} must hold one JSON object`)
  const values = new Map<string, unknown>()
  flatten(value, '', values)
  return { source: path, values }
}

const ENVIRONMENT_PREFIX = 'SHOAL_SET_'

/** SHOAL_SET_STORAGE_QUOTA for storage.quota, and so on for each key; SHOAL_SET_LABELS="zone=a,rack=7". */
export function environmentLayer (env: Record<string, string | undefined>): Layer {
  const names = new Map(Object.keys(KEYS).map(key => [environmentName(key), key]))
  const values = new Map<string, unknown>()
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(ENVIRONMENT_PREFIX) || value === undefined) continue
    const key = names.get(name)
    if (key !== undefined) values.set(key, value)
    else if (name === `${ENVIRONMENT_PREFIX}LABELS`) for (const label of value.split(',')) setPair(values, label, name, 'labels.')
    else throw new ConfigError(`unknown variable ${name}${meant(name, [...names.keys(), `${ENVIRONMENT_PREFIX}LABELS`])}`)
  }
  return { source: 'the environment', values }
}

export function environmentName (key: string): string {
  return ENVIRONMENT_PREFIX + key.replaceAll('.', '_').replace(/[a-z](?=[A-Z])/g, '$&_').toUpperCase()
}

/** `--set key=value`, `--label key=value` and the lists of `--listen`. */
export function flagLayer (flags: { set?: string[], label?: string[], listen?: string[] }): Layer {
  const values = new Map<string, unknown>()
  for (const pair of flags.set ?? []) setPair(values, pair, '--set')
  for (const pair of flags.label ?? []) setPair(values, pair, '--label', 'labels.')
  if (flags.listen !== undefined) values.set('listen', flags.listen)
  return { source: 'the command line', values }
}

function setPair (values: Map<string, unknown>, pair: string, flag: string, prefix = ''): void {
  const at = pair.indexOf('=')
  if (at <= 0) throw new ConfigError(`${flag} takes key=value, not ${INVITE.test(pair) ? 'an invite, which goes with --join' : JSON.stringify(pair)}`)
  values.set(prefix + pair.slice(0, at).trim(), pair.slice(at + 1))
}

/** Objects are taken apart down to known keys; labels down to each label. */
function flatten (object: Record<string, unknown>, prefix: string, into: Map<string, unknown>): void {
  for (const [name, value] of Object.entries(object)) {
    const key = prefix + name
    if (isRecord(value) && !isKey(key)) {
      // An empty section says nothing, but a misspelt one is still misspelt.
      if (Object.keys(value).length === 0 && !isSection(key)) into.set(key, value)
      flatten(value, `${key}.`, into)
    } else {
      into.set(key, value)
    }
  }
}

function isSection (key: string): boolean {
  return key === 'labels' || Object.keys(KEYS).some(known => known.startsWith(`${key}.`))
}

/** What others can reach is asked for twice; said here, before a start leaves anything behind. */
function checkReach ({ api: { tcp: { port, ...tcp } }, hf, metrics }: DaemonSettings): void {
  if (port !== undefined) checkListen({ ...tcp, port }, API_TCP)
  if (hf.listen !== undefined) checkListen({ ...hf, ...hf.listen }, HUGGING_FACE)
  if (metrics.listen !== undefined) checkListen({ ...metrics, ...metrics.listen }, METRICS)
}

function assemble (values: Values, labels: Record<string, string>): Config {
  const section = <Name extends keyof NodeSettings>(name: Name): NodeSettings[Name] | undefined => {
    const entries = Object.entries(values).map(([key, value]) => [key.slice(0, name.length + 1), key.slice(name.length + 1), value] as const)
      .filter(([section, key]) => section === `${name}.` && !key.includes('.')).map(([, key, value]) => [key, value])
    return entries.length === 0 ? undefined : Object.fromEntries(entries) as NodeSettings[Name]
  }
  return {
    node: {
      listen: values.listen,
      announceAddresses: values.announceAddresses,
      join: values.join,
      labels: Object.keys(labels).length === 0 ? undefined : labels,
      storage: section('storage'),
      announce: section('announce'),
      transfer: joined(section('transfer'), renamed(values, CAP_KEYS)),
      lane: section('lane'),
      replication: replicationOf(values),
      network: section('network'),
      origin: Object.hasOwn(values, 'hf.upstream') ? { upstream: values['hf.upstream'] } : undefined
    },
    daemon: {
      api: {
        tcp: {
          host: values['api.tcp.host'] ?? '127.0.0.1',
          port: values['api.tcp.port'],
          tokenFile: values['api.tcp.tokenFile'],
          allowRemote: values['api.tcp.allowRemote'] ?? false,
          hosts: values['api.tcp.hosts'] ?? []
        }
      },
      hf: { listen: values['hf.listen'], allowRemote: values['hf.allowRemote'] ?? false, hosts: values['hf.hosts'] ?? [] },
      metrics: { listen: values['metrics.listen'], allowRemote: values['metrics.allowRemote'] ?? false, hosts: values['metrics.hosts'] ?? [] },
      log: { level: values['log.level'] ?? { level: 'info', components: new Map() }, format: values['log.format'] ?? 'auto' }
    }
  }
}

/** What is set of the keys, by the names the code has for them. Undefined when nothing is. */
function renamed<Name extends string> (values: Values, keys: Record<Name, Key>): Record<Name, unknown> | undefined {
  const given = Object.entries<Key>(keys).filter(([, key]) => Object.hasOwn(values, key)).map(([name, key]) => [name, values[key]])
  return given.length === 0 ? undefined : Object.fromEntries(given) as Record<Name, unknown>
}

function joined<T extends object> (one: T | undefined, other: object | undefined): T | undefined {
  return one === undefined && other === undefined ? undefined : { ...one, ...other } as T
}

function replicationOf (values: Values): NodeSettings['replication'] | undefined {
  const settings = renamed(values, REPLICATION_KEYS) as Partial<NodeSettings['replication']> | undefined
  if (settings === undefined) return undefined
  const { min, target, max } = { ...defaultReplication, ...settings }
  if (min > target) throw unordered('replication.min', min, 'replication.target', target)
  if (target > max) throw unordered('replication.target', target, 'replication.max', max)
  return settings as NodeSettings['replication']
}

function unordered (lower: string, low: number, upper: string, high: number): ConfigError {
  return new ConfigError(`${lower} (${low}) must not be more than ${upper} (${high}); set both, so that min <= target <= max`)
}

function wrongValue (key: Key, { issues: [issue] }: z.ZodError, { value, source }: { value: unknown, source: string }): ConfigError {
  const message = issue?.message ?? 'is wrong'
  if (!SECRET_KEYS.has(key)) return new ConfigError(`${key} ${message}, not ${JSON.stringify(value)} (from ${source})`)
  const position = issue?.path[0]
  return new ConfigError(`${typeof position === 'number' ? `entry ${position + 1} of ${key}` : key} ${message} (from ${source}; what is there is not told, for it may hold secrets)`)
}

function unknownKey (key: string, source: string): ConfigError {
  const first = configKeys.find(known => known.startsWith(`${key}.`)) ?? (key === 'labels' ? 'labels.zone' : undefined)
  if (first !== undefined) return new ConfigError(`${key} (from ${source}) is a section; set one of its keys, such as ${first}; config/README.md lists them all`)
  return new ConfigError(`unknown configuration key ${JSON.stringify(key)} (from ${source})${meant(key, [...configKeys, ...SECTIONS])}; config/README.md lists them all`)
}

/** The nearest known one, by its whole name or by its last part (`quota` for `storage.quota`), unless nothing is near. */
function meant (given: string, known: readonly string[]): string {
  const bare = known.filter(key => key.split('.').pop() === given.split('.').pop())
  const nearest = closest(given.toLowerCase(), (bare.length > 0 ? bare : known).map(key => key.toLowerCase()))
  const key = known.find(candidate => candidate.toLowerCase() === nearest)
  if (key === undefined) return ''
  return bare.length > 0 || distance(given.toLowerCase(), nearest) <= Math.max(2, given.length / 3) ? `; did you mean ${key}?` : `; the nearest is ${key}`
}

function labelName (name: string, source: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/.test(name)) throw new ConfigError(`the label name ${JSON.stringify(name)} (from ${source}) must begin with a letter or digit and may have "_", "." and "-" after it, 63 characters at most`)
  return name
}

function labelValue (key: string, value: unknown, source: string): string {
  // Peers take no longer ones (base/limits.ts).
  if (typeof value !== 'string' || Buffer.byteLength(value) > LABEL_BYTES_MAX) throw new ConfigError(`${key} (from ${source}) must be text of ${LABEL_BYTES_MAX} bytes at most`)
  return value
}

function isKey (key: string): key is Key {
  return Object.hasOwn(KEYS, key)
}
