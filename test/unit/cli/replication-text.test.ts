import assert from 'node:assert/strict'
import type { ShownHolder, ShownModelReplication, ShownReplication, ShownShard } from '../../../src/api/types.ts'
import { fields } from '../../../src/cli/format.ts'
import { domainsInWords, leftTable, modelInWords, replicationFields, replicationTable, shardTable } from '../../../src/cli/replication-text.ts'

const NOW = 1_800_000_000_000

const model = (cid: string, over: Partial<ShownModelReplication> = {}): ShownModelReplication => ({
  cid, min: 2, target: 3, max: 5, replicasMin: 3, shards: 4, deficitShards: 0, deficitBytes: 0, repairing: 0, oldestProofAt: NOW - 60_000, secondsLeft: undefined, ...over
})
const holder = (peerId: string, state: ShownHolder['state'], labels: Record<string, string> = {}): ShownHolder => ({ peerId, state, provenAt: state === 'proven' ? NOW - 2_000 : null, labels })
const shard = (id: number, ...holders: ShownHolder[]): ShownShard => ({ id, bytes: 2 ** 28, replicas: holders.filter(({ state }) => state === 'proven').length, repairing: false, holders })
const status = (over: Partial<ShownReplication> = {}): ShownReplication => ({
  models: [],
  brake: false,
  settled: true,
  draining: false,
  donateBytes: 0,
  committedBytes: 0,
  pendingBytes: 0,
  pulling: 0,
  repairMs: undefined,
  durability: undefined,
  scrub: { bytesDone: 0, bytesTotal: 0, bad: 0, lastCompletedAt: undefined, suspectSince: undefined },
  counters: { repairBytes: 0, repairs: 0, proofsAsked: 0, proofsFailed: 0, released: 0, messagesSent: 0, messageBytesSent: 0 },
  ...over
})
const words = (over: Partial<ShownReplication> = {}): string => fields(replicationFields(status(over), NOW))

describe('cli: replication in words', () => {
  it('has a line a model, worst first, without those that nobody wants replicated', () => {
    const models = [model('a'), model('unwanted', { target: 0 }), model('b', { replicasMin: 1, deficitShards: 2, deficitBytes: 2 ** 29, repairing: 1, oldestProofAt: undefined }), model('c', { replicasMin: 1, deficitShards: 4, deficitBytes: 2 ** 30 }), model('d', { replicasMin: 0, deficitShards: 4, deficitBytes: 3 * 2 ** 30, repairing: 4, secondsLeft: 184.6 })]
    assert.equal(replicationTable(models, NOW), [
      'MODEL  REPLICAS  SHARDS  BELOW  MISSING  REPAIRING       LEFT  PROVEN',
      'd           0/3       4      4    3 GiB          4  3 min 5 s  1 min ago',
      'c           1/3       4      4    1 GiB          0          -  1 min ago',
      'b           1/3       4      2  512 MiB          1    unknown  never',
      'a           3/3       4      0        -          0          -  1 min ago'
    ].join('\n'))
    assert.deepEqual(models.map(({ cid }) => cid), ['a', 'unwanted', 'b', 'c', 'd'], 'the answer itself stays as it came')
    assert.equal(replicationTable([model('a')], NOW), 'MODEL  REPLICAS  SHARDS  BELOW  MISSING  REPAIRING  PROVEN\na           3/3       4      0        -          0  1 min ago', 'nothing is being repaired')
    assert.equal(replicationTable([model('unwanted', { target: 0 })], NOW), undefined)
  })

  it('tells brake, settling, drain, deficits, repair time and durability', () => {
    const quiet = words()
    assert.match(quiet, /^donated +nothing \(storage\.donate\), 0 B promised to keep\nreplicas +no model is to be replicated\nbrake +off\nrepair +none was needed yet\n/)
    assert.doesNotMatch(quiet, /drain/)
    assert.match(words({ models: [model('a')] }), /^replicas +all 1 model at target$/m)
    const busy = words({
      models: [model('a', { deficitShards: 2, deficitBytes: 2 ** 29, repairing: 1 }), model('b')],
      brake: true,
      draining: true,
      donateBytes: 2 ** 40,
      committedBytes: 2 ** 30,
      pendingBytes: 2 ** 28,
      pulling: 1,
      repairMs: 42_000,
      durability: 0.9999997,
      scrub: { bytesDone: 5, bytesTotal: 10, bad: 1, lastCompletedAt: NOW - 86_400_000, suspectSince: undefined }
    })
    for (const line of [
      /^donated +1 TiB, 1 GiB promised to keep, 1 shard coming \(256 MiB\)$/m, /^replicas +1 of 2 models below target: 2 shards, 512 MiB, 1 being repaired, time left not known yet$/m, /^brake +ON: /m,
      /^drain +draining: /m, /^repair +42 s from a loss to target/m, /^durability +99\.99997 % a year/m, /^scrub +50 % of 10 B, 1 block bad, last pass 1 d ago$/m
    ]) assert.match(busy, line)
    const two = [model('a', { deficitShards: 1, repairing: 1, secondsLeft: 5 }), model('b', { deficitShards: 1, repairing: 1, secondsLeft: 90 })]
    assert.match(words({ models: two }), /2 being repaired, about 1 min 30 s left$/m)
    assert.match(quiet, /^scrub +nothing to check now, none bad, no pass complete yet$/m)
    const suspect = words({ draining: true, scrub: { bytesDone: 10, bytesTotal: 10, bad: 9, lastCompletedAt: NOW, suspectSince: NOW - 60_000 } })
    assert.match(suspect, /^drain +.* until its volume is trusted again$/m)
    assert.match(suspect, /^scrub +.*9 blocks bad, last pass now, VOLUME SUSPECT since 1 min ago$/m)
    assert.match(words({ settled: false }), /^brake +off, but the view is not stable/m)
  })

  it('says of one model how it stands and in which domains, widest first', () => {
    assert.equal(modelInWords(undefined), 'not replicated')
    assert.equal(modelInWords(model('a', { target: 0 })), 'not replicated')
    assert.equal(modelInWords(model('a', { target: 0 }), true), 'not known yet')
    assert.equal(modelInWords(model('a')), '3 of 3 at the fewest (min 2, max 5), all 4 shards at target')
    assert.equal(modelInWords(model('a', { replicasMin: 1, deficitShards: 2, repairing: 1 })), '1 of 3 at the fewest (min 2, max 5), 2 of 4 shards below target, 1 being repaired, time left not known yet')
    assert.match(modelInWords(model('a', { deficitShards: 2, repairing: 0, secondsLeft: undefined })), /below target, 0 being repaired$/)
    assert.match(modelInWords(model('a', { deficitShards: 2, repairing: 1, secondsLeft: 39.7 })), /1 being repaired, about 40 s left$/)
    assert.match(modelInWords(model('a', { deficitShards: 2, repairing: 1, secondsLeft: 0.2 })), /about 1 s left$/)
    const one = holder('p', 'proven', { host: 'h1', zone: 'b', disk: 'x' })
    assert.equal(domainsInWords([shard(0, one, holder('q', 'claimed', { zone: 'a', host: 'h2' })), shard(1, one)]), 'zone a, b; host h1, h2; disk unlabelled, x')
    assert.equal(domainsInWords([shard(0, holder('p', 'proven'), holder('q', 'proven'))]), '2 nodes without labels')
    const gone = ['down', 'cached', 'draining'] as const
    assert.equal(domainsInWords([shard(0, ...gone.map(state => holder(state, state, { zone: state })))]), 'nobody is known to keep it')
    assert.equal(domainsInWords([], true), 'not known yet')
    assert.equal(domainsInWords([shard(0, ...Array.from({ length: 10 }, (_, i) => holder(`p${i}`, 'proven', { zone: `z${i}` })))]), 'zone z0, z1, z2, z3, z4, z5, z6, z7 and 2 more')
    assert.equal(domainsInWords([shard(0, holder('p', 'proven', { zone: '\u001b[31m' }))]), 'zone \\x1b[31m')
  })

  it('lists the holders of each shard under one another', () => {
    assert.equal(shardTable([shard(0, holder('peer', 'proven', { rack: 'r', zone: 'a' }), holder('other', 'down')), { ...shard(1), repairing: true }], 3, NOW), [
      'SHARD     SIZE  REPLICAS  HOLDER  STATE   PROVEN     LABELS',
      '    0  256 MiB       1/3  peer    proven  2.0 s ago  zone=a, rack=r',
      '                          other   down    never      -',
      '    1  256 MiB     0/3 +  nobody  -       -          -'
    ].join('\n'))
    assert.equal(shardTable([], 3, NOW), 'nothing is known of its shards')
  })

  it('lists what a drain left, the nearest to being lost first', () => {
    const left = [{ model: 'b', shard: 1, replicas: 0, target: 3 }, { model: 'a', shard: 0, replicas: 2, target: 3 }, { model: 'b', shard: 0, replicas: 0, target: 3 }]
    assert.equal(leftTable(left), 'MODEL  SHARD  REPLICAS\nb          0       0/3\nb          1       0/3\na          0       2/3')
  })
})
