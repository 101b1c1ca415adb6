import type { Command } from 'commander'
import { action } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { count, size, table } from '../format.ts'

export function addVerify (program: Command): void {
  program.command('verify')
    .description('re-hash what is held; exit code 4 if anything is bad')
    .argument('[cid]', 'only this model')
    .action(action(async (context, cid: string | undefined) => {
      context.listenForInterrupts()
      const progress = context.progress('verifying')
      const result = await context.client.verify(cid, { signal: context.signal, onProgress: now => { progress.update(now) } })
        .finally(() => { progress.stop() })
      const checked = `${count(result.blocks, 'block')}, ${size(result.bytes)} checked`
      context.print(result, result.bad.length === 0
        ? `${checked}: all good`
        : `${table(['MODEL', 'FILE', '>BLOCK', 'REASON'], result.bad.map(bad => [bad.model, bad.path, String(bad.block), bad.reason]))}\n\n` +
          `${checked}: ${count(result.bad.length, 'block')} bad and withdrawn; fetch them again with shoal get CID`)
      return result.bad.length === 0 ? EXIT.done : EXIT.verification
    }))
}
