import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { ReplicationStatus, ShoalNode } from '../node/types.ts'
import { setOrRemove, setTo } from './metric-values.ts'

/** A last copy is back within seconds, a shard whose grace is ten minutes within the quarter of an hour, a large loss within hours. */
const RESTORE_SECONDS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 14_400]

export interface ReplicationMetrics {
  update: (status: ReplicationStatus) => void
  stop: () => void
}

/** The part of the metrics that is about replicas: sums over models, since a CID is no label. */
export function createReplicationMetrics (registry: Registry, node: ShoalNode): ReplicationMetrics {
  const registers = [registry]
  const restore = new Histogram({
    name: 'shoal_replication_restore_seconds', help: 'From falling below target to being back at it, for each shard', buckets: RESTORE_SECONDS, registers
  })
  const gauges = makeGauges(registers)
  const counters = makeCounters(registers)
  const off = node.events.on('replication:restored', ({ ms }) => { restore.observe(ms / 1000) })
  return {
    stop: off,
    update: status => {
      gauges(status)
      counters(status)
    }
  }
}

function makeGauges (registers: Registry[]): (status: ReplicationStatus) => void {
  const gauge = (name: string, help: string): Gauge => new Gauge({ name: `shoal_${name}`, help, registers })
  const deficit = gauge('replication_deficit_shards', 'Shards below their target, of the models known here')
  const deficitBytes = gauge('replication_deficit_bytes', 'Bytes of the replicas that shards below target lack')
  const repairing = gauge('replication_repairing_shards', 'Shards on their way to somebody')
  const models = gauge('replication_models', 'Models known here that are to be replicated')
  const short = gauge('replication_models_below_target', 'Those of them that have shards below target')
  const shards = gauge('replication_shards', 'Shards of models that are to be replicated')
  const pulling = gauge('replication_pulling_shards', 'Shards being fetched to be held here')
  const proofAge = gauge('replication_oldest_proof_age_seconds', 'Age of the oldest proof that counts; absent without one')
  const left = gauge('replication_remaining_seconds', 'Until what is being repaired is there, by the measured rate; absent when nothing is, or before a measurement')
  const durability = gauge('replication_durability_ratio', 'Estimated probability that nothing of a model with a target is lost within a year; absent before the first measured repair')
  const settled = gauge('replication_settled', '1 once the view of the others has been stable since the start')
  const fewest = gauge('replication_replicas_min', 'Fewest replicas of any shard of a model that is to be replicated; absent without one')
  const committed = gauge('replication_committed_bytes', 'Bytes of shards this node promised to keep')
  const pending = gauge('replication_pending_bytes', 'Bytes of accepted shards on their way here')
  const donated = gauge('replication_donated_bytes', 'What storage.donate gives to the swarm')
  const brake = gauge('replication_brake', '1 while too many peers are gone at once: only last copies are repaired')
  const draining = gauge('replication_draining', '1 while this node hands over what it holds')
  const scrubbed = gauge('scrub_progress_ratio', 'How much of what is held was re-hashed in this pass, 0 to 1')
  const scrubbedAt = gauge('scrub_completed_timestamp_seconds', 'When the last pass ended, seconds since 1970; absent before the first')
  const bad = gauge('scrub_bad_blocks', 'Blocks that scrubbing found bad')
  const suspect = gauge('scrub_volume_suspect', '1 when several blocks went bad in one scrub: the volume is drained')
  return status => {
    const wanted = status.models.filter(model => model.target > 0)
    models.set(wanted.length)
    short.set(wanted.filter(model => model.deficitShards > 0).length)
    shards.set(sum(wanted.map(model => model.shards)))
    pulling.set(status.pulling)
    const ages = wanted.map(model => model.oldestProofAgoMs).filter(age => age !== undefined)
    setOrRemove(proofAge, ages.length === 0 ? undefined : Math.max(...ages) / 1000)
    const times = wanted.map(model => model.secondsLeft).filter(time => time !== undefined)
    setOrRemove(left, times.length === 0 ? undefined : Math.max(...times))
    setOrRemove(durability, status.durability)
    settled.set(status.settled ? 1 : 0)
    deficit.set(sum(wanted.map(model => model.deficitShards)))
    deficitBytes.set(sum(wanted.map(model => model.deficitBytes)))
    repairing.set(sum(status.models.map(model => model.repairing)))
    setOrRemove(fewest, wanted.length === 0 ? undefined : Math.min(...wanted.map(model => model.replicasMin)))
    committed.set(status.committedBytes)
    pending.set(status.pendingBytes)
    donated.set(status.donateBytes)
    brake.set(status.brake ? 1 : 0)
    draining.set(status.draining ? 1 : 0)
    scrubbed.set(status.scrub.bytesTotal === 0 ? 1 : status.scrub.bytesDone / status.scrub.bytesTotal)
    setOrRemove(scrubbedAt, status.scrub.lastCompletedAt === undefined ? undefined : status.scrub.lastCompletedAt / 1000)
    bad.set(status.scrub.bad)
    suspect.set(status.scrub.suspectSince === undefined ? 0 : 1)
  }
}

function makeCounters (registers: Registry[]): (status: ReplicationStatus) => void {
  const counter = (name: string, help: string): Counter => new Counter({ name: `shoal_replication_${name}_total`, help, registers })
  const repairBytes = counter('repair_bytes', 'Bytes fetched to hold them for the swarm')
  const repairs = counter('repairs', 'Shards fetched to hold them for the swarm')
  const asked = counter('proofs_asked', 'Proofs asked of other holders')
  const failed = counter('proofs_failed', 'Proofs that were wrong')
  const released = counter('released', 'Surplus replicas let go here')
  const messages = counter('messages', 'Replication messages sent')
  const messageBytes = counter('message_bytes', 'Bytes of replication messages sent')
  return ({ counters }) => {
    setTo(repairBytes, counters.repairBytes)
    setTo(repairs, counters.repairs)
    setTo(asked, counters.proofsAsked)
    setTo(failed, counters.proofsFailed)
    setTo(released, counters.released)
    setTo(messages, counters.messagesSent)
    setTo(messageBytes, counters.messageBytesSent)
  }
}

function sum (values: number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
