import { resolve } from 'node:path'
import type { Command } from 'commander'
import { AbortError } from '../../base/index.ts'
import type { AddResult } from '../../node/types.ts'
import { action, type Context } from '../context.ts'
import { count, duration, size } from '../format.ts'
import { parseReplicas } from '../units.ts'

interface Options { inPlace?: boolean, follow?: boolean, replicas?: string, wait?: boolean }

export function addAdd (program: Command): void {
  program.command('add')
    .description('publish a file or directory; prints the model CID')
    .argument('<path>', 'what to add')
    .option('--in-place', 'reference the files where they are instead of copying them; they must not change')
    .option('--follow', 'follow symbolic links instead of refusing them')
    .option('--replicas <n>', 'how many replicas the swarm is to keep, 0 to 64 (default: replication.target)')
    .option('--wait', 'return only when every shard has its replicas, proven')
    .action(action(async (context, path: string, options: Options) => {
      const replicas = parseReplicas(options.replicas)
      context.listenForInterrupts()
      const result = await add(context, resolve(path), { inPlace: options.inPlace, follow: options.follow, replicas })
      for (const warning of result.warnings) context.note(`shoal: ${warning}`)
      context.note(`added ${count(result.files, 'file')}, ${size(result.bytes)} in ${count(result.blocks, 'block')}, ${size(result.newBytes)} new, in ${duration(result.seconds)}`)
      const { cid, files, bytes, blocks, newBytes, seconds, warnings } = result
      // Told before the waiting: the model is added, whatever becomes of the rest.
      context.print({ cid, files, bytes, blocks, newBytes, seconds, warnings }, cid)
      if (options.wait === true) await waitForReplicas(context, cid)
    }))
}

async function add (context: Context, path: string, options: { inPlace?: boolean | undefined, follow?: boolean | undefined, replicas?: number | undefined }): Promise<AddResult> {
  const progress = context.progress('adding')
  return await context.client.add(path, { ...options, signal: context.signal, onProgress: now => { progress.update(now) } })
    .finally(() => { progress.stop() })
}

async function waitForReplicas (context: Context, cid: string): Promise<void> {
  const progress = context.progress('replicating')
  try {
    const { seconds } = await context.client.replicated(cid, { signal: context.signal, onProgress: now => { progress.update(now) } })
    progress.stop()
    context.note(`every shard has its replicas, after ${duration(seconds)} of waiting`)
  } catch (error) {
    if (context.signal.aborted) throw new AbortError(`interrupted; ${cid} is added and goes on being replicated, see: shoal status`, { cause: error })
    throw error
  } finally {
    progress.stop()
  }
}
