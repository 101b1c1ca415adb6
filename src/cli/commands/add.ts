import { resolve } from 'node:path'
import type { Command } from 'commander'
import { action } from '../context.ts'
import { count, duration, size } from '../format.ts'

interface Options { inPlace?: boolean, follow?: boolean }

export function addAdd (program: Command): void {
  program.command('add')
    .description('publish a file or directory; prints the model CID')
    .argument('<path>', 'what to add')
    .option('--in-place', 'reference the files where they are instead of copying them; they must not change')
    .option('--follow', 'follow symbolic links instead of refusing them')
    .action(action(async (context, path: string, { inPlace, follow }: Options) => {
      context.listenForInterrupts()
      const progress = context.progress('adding')
      const result = await context.client.add(resolve(path), { inPlace, follow, signal: context.signal, onProgress: now => { progress.update(now) } })
        .finally(() => { progress.stop() })
      for (const warning of result.warnings) context.note(`shoal: ${warning}`)
      context.note(`added ${count(result.files, 'file')}, ${size(result.bytes)} in ${count(result.blocks, 'block')}, ${size(result.newBytes)} new, in ${duration(result.seconds)}`)
      const { cid, files, bytes, blocks, newBytes, seconds, warnings } = result
      context.print({ cid, files, bytes, blocks, newBytes, seconds, warnings }, cid)
    }))
}
